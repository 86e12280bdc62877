"""The model card, as Markdown. Pure."""

from __future__ import annotations

from saker.engine.contract import Contract
from saker.export.onnx_writer.metadata import ModelFacts
from saker.export.proof.report import ParityReport

_MEANING = {
    "probability": "a probability",
    "value": "a predicted value",
    "rank": "a rank (higher comes first)",
    "margin": "the raw margin, since the objective is custom and the file does not contain its transform",
}


def model_card(contract: Contract, facts: ModelFacts, report: ParityReport) -> str:
    """Score, input, origin and proof of a model."""
    kinds = [feature.kind for feature in contract.features]
    provenance = contract.provenance
    trained = [
        f"- training run: {provenance.run_id or 'not trained by saker'}",
        f"- data (SHA-256): {provenance.data_sha256 or 'unknown'}",
    ]
    if provenance.time_range:
        trained.append(f"- time of the data: {provenance.time_range[0]:g} to {provenance.time_range[1]:g}")
    return "\n".join(
        [
            "# Model card",
            "",
            f"{facts.source}, objective `{facts.objective}`: {facts.iterations} iterations, {facts.n_trees} trees"
            + (", averaged" if facts.averaged else "")
            + ".",
            "",
            f"The score is {_MEANING[contract.score]}; `is_fraud` is true from {contract.threshold:g} on. "
            f"`{contract.id_field}` identifies a record.",
            "",
            "## Input",
            "",
            f"{len(kinds)} features: {kinds.count('number')} numbers, {kinds.count('category')} categories, "
            f"{kinds.count('derived')} derived, {kinds.count('velocity')} velocity; "
            f"{sum(feature.required for feature in contract.features)} required.",
            "",
            "## Origin",
            "",
            *trained,
            "",
            "## Proof",
            "",
            "```",
            report.table(),
            "```",
            "",
        ],
    )
