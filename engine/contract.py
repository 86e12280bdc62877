"""The contract of a model: one JSON document inside the ONNX file.

Reading it needs the standard library only, so a tool can inspect a model without loading onnxruntime.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from saker.engine.errors import ModelRefused
from saker.engine.onnx_metadata import read_metadata

FORMAT_VERSION = 1
#: Fields of a result besides the identifier (engine/records/encode.py).
RESULT_FIELDS = ("fraud_score", "is_fraud", "model", "scored_at_ms", "late")
METADATA_KEY = "saker.contract"

Kind = Literal["number", "category", "derived"]
#: What a score is: of a custom objective the margin as it is, which the library leaves to its caller to transform.
ScoreMeaning = Literal["probability", "value", "rank", "margin"]


def _hour_of_day(seconds: float) -> float:
    return math.floor(seconds / 3600) % 24


def _day_of_week(seconds: float) -> float:
    return math.floor(seconds / 86400) % 7


#: Name -> function of one numeric field. Seconds may count from any midnight: IEEE-CIS counts from an undisclosed one.
DERIVATIONS: dict[str, Callable[[float], float]] = {"hour_of_day": _hour_of_day, "day_of_week": _day_of_week}


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the matrix, in the model's order.

    A number is taken as float32. A category becomes its index in `vocabulary`; a value outside it is scored as
    missing, as LightGBM does. A derived feature is `derivation` applied to the number in `source`.
    An optional feature that is absent or null is NaN; a required one rejects the record.
    """

    name: str
    kind: Kind = "number"
    required: bool = False
    vocabulary: tuple[str, ...] = ()
    source: str | None = None
    derivation: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("number", "category", "derived"):
            raise ModelRefused(f"feature {self.name!r}: kind is {self.kind!r}, expected number, category or derived")
        if self.kind == "derived" and (not self.source or self.derivation not in DERIVATIONS):
            raise ModelRefused(
                f"feature {self.name!r}: derived needs a source field and one of {sorted(DERIVATIONS)}, "
                f"got {self.derivation!r} of {self.source!r}",
            )

    @property
    def field(self) -> str:
        """The record's field that this feature reads."""
        return self.source or self.name


@dataclass(frozen=True, slots=True)
class Golden:
    """A raw record, the row it must decode to (null is NaN) and the score it must get."""

    record: str
    row: tuple[float | None, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of the rows trained on: the shares up to each of `edges` (ascending), above the last, and missing."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model came from; empty for a Booster that saker did not train.

    learned_until: time of the first row that it did not learn from, in the seconds of its time column.
    """

    run_id: str | None = None
    data_sha256: str | None = None
    time_range: tuple[float, float] | None = None
    learned_until: float | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    features: tuple[Feature, ...]
    id_field: str = "TransactionID"
    threshold: float = 0.5
    provenance: Provenance = field(default_factory=Provenance)
    golden: tuple[Golden, ...] = ()
    score: ScoreMeaning = "probability"
    #: Largest difference of a golden record's score, relative to it where it is above 1: the library's own precision.
    tolerance: float = 1e-9
    #: The model's output that is the score, and which of its columns where it has several.
    output: str = "score"
    column: int | None = None
    #: What drift is measured against: of each feature in order, and of the score. Empty where saker did not train the model.
    reference: tuple[Distribution, ...] = ()
    score_reference: Distribution | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ModelRefused(f"contract: feature names must be unique, these are repeated: {', '.join(repeated)}")
        if self.id_field in RESULT_FIELDS:
            raise ModelRefused(
                f"contract: the identifier's field is {self.id_field!r}, and a result has a field of that name already: "
                "give the identifier another name in the records, or name another field"
            )
        if not math.isfinite(self.threshold) or (self.score == "probability" and not 0 <= self.threshold <= 1):
            raise ModelRefused(f"contract: threshold must be in [0, 1] for a probability, got {self.threshold}")

    def to_json(self) -> str:
        """The document for `metadata_props`; features omit default values."""
        document = asdict(self)
        document["features"] = [
            {
                item.name: getattr(feature, item.name)
                for item in fields(feature)
                if item.name == "name" or getattr(feature, item.name) != item.default
            }
            for feature in self.features
        ]
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Contract:
        try:
            document: dict[str, Any] = json.loads(text)
            version = document["format_version"]
            if not isinstance(version, int) or version > FORMAT_VERSION:
                raise ModelRefused(
                    f"contract: this model has format version {version}, this saker reads up to {FORMAT_VERSION}; "
                    "serve it with a newer saker or export it again",
                )
            time_range = document["provenance"].get("time_range")
            return cls(
                features=tuple(
                    Feature(**{**item, "vocabulary": tuple(item.get("vocabulary", ()))}) for item in document["features"]
                ),
                id_field=document["id_field"],
                threshold=document["threshold"],
                provenance=Provenance(
                    **{**document["provenance"], "time_range": tuple(time_range) if time_range else None},
                ),
                score=document["score"],
                tolerance=document["tolerance"],
                output=document["output"],
                column=document["column"],
                reference=tuple(map(_distribution, document.get("reference", ()))),
                score_reference=_distribution(score) if (score := document.get("score_reference")) else None,
                golden=tuple(Golden(g["record"], tuple(g["row"]), g["score"]) for g in document["golden"]),
                format_version=version,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelRefused(f"contract: the document in the model is damaged ({error!r}); export it again") from error


def _distribution(document: dict[str, Any]) -> Distribution:
    return Distribution(tuple(document["edges"]), tuple(document["shares"]))


def read_contract(model: bytes | str | Path) -> Contract:
    """The contract in an ONNX file or in its bytes; raises `ModelRefused` if there is none."""
    found = read_metadata(model).get(METADATA_KEY)
    if found is None:
        raise ModelRefused(
            f"model: no contract ({METADATA_KEY} in metadata_props); export it with `saker export`, or describe a model "
            "of other origin with `saker models describe`",
        )
    return Contract.from_json(found)
