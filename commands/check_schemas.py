"""How a model's contract maps onto the schemas of a topic, for `saker doctor --registry`."""

from __future__ import annotations

from typing import cast

from saker.engine import config
from saker.engine.contract import Contract, read_contract
from saker.engine.field_tree import Field, field_tree
from saker.engine.model import registry
from saker.engine.paths import Path
from saker.engine.records.content import SchemaError
from saker.engine.records.envelope import envelope_of
from saker.engine.records.formats import Format, FormatReader, Kind, Schema
from saker.engine.records.schema_fields import SchemaField, schema_fields
from saker.engine.schema_registry import Registry

_SHOWN = 50


class _One:
    """A registry of one schema, whatever its id."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def get(self, _number: int) -> Schema:
        return self._schema

    def number_of(self, _guid: bytes) -> None:
        return None


def check_schemas(url: str, subject: str, model: str, envelope: str, tracking_uri: str | None) -> tuple[list[str], bool]:
    """Lines for a person: each version of the subject, and where the newest has what the model reads; and whether it fits.

    Raises `SakerError`.
    """
    located = registry.locate(model, tracking_uri or config.tracking_uri())
    contract = read_contract(located.path)
    if (around := envelope_of(envelope)) is not None:
        contract = around.within(contract)
    schemas = Registry(url)
    lines, fits, newest = [f"subject {subject} at {schemas.url}, for {located.name}:"], False, None
    for version in schemas.versions(subject):
        number, _, newest = schemas.version(subject, version)
        why = FormatReader(contract, Format(cast("Kind", newest.kind), schemas=_One(newest))).why_rejected(number)
        fits = why is None
        lines.append(f"  version {version}, schema {number} ({newest.kind}): {'fits' if fits else f'REJECTED, {why}'}")
    return [*lines, *([] if newest is None else _mapped(contract, newest))], fits


def _mapped(contract: Contract, schema: Schema) -> list[str]:
    """Each field that the contract reads, and its type in the schema."""
    try:
        known = {one.path: one for one in schema_fields(schema)}
    except SchemaError as error:
        return [f"  the newest schema cannot be shown: {error}"]
    fields = list(field_tree(contract).fields())
    lines = [f"  {field.label:30} {_mapping(field, known)}" for field in fields[:_SHOWN]]
    return lines + ([f"  and {len(fields) - _SHOWN} more"] if len(fields) > _SHOWN else [])


def _mapping(field: Field, known: dict[Path, SchemaField]) -> str:
    kinds = [feature.derivation or feature.kind for _, feature in field.columns]
    use = ", ".join([*kinds, *(["required"] if field.required else []), *(["identifier"] if field.is_identifier else [])])
    if (found := known.get(field.path)) is not None:
        return f"{found.type}{', optional' if found.is_optional else ''}  ->  {use}"
    around = next((one for path, one in known.items() if field.path[: len(path)] == path), None)
    return f"{f'in {around.label} ({around.type})' if around else 'NOT IN THE SCHEMA'}  ->  {use}"
