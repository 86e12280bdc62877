"""A features file from a schema of records: of every field in it, or of the fields that a model's features are.

schema --engine/records/schema_fields.py--> fields --+--> Contract with each of them, and notes on what to check
                    model's features ----by name-----+--> the model's features, with the paths of the fields
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from saker.engine.contract import Contract, Feature
from saker.engine.errors import SakerError
from saker.engine.records.schema_fields import SchemaField

_PARTS = ("hour_of_day", "day_of_week")
_IDENTIFIERS = ("id", "transactionid", "paymentid", "eventid", "uuid")


def features_of_schema(fields: Sequence[SchemaField]) -> tuple[Contract, list[str]]:
    """A feature of each number and category, and two of each time; and notes."""
    identifier = _identifier(fields)
    features: list[Feature] = []
    for one in fields:
        if one is identifier or one.kind == "other":
            continue
        where = _where(one)
        if one.kind == "time":
            features += [Feature(f"{one.label}.{part}", "derived", path=one.label, derivation=part) for part in _PARTS]
        elif one.kind == "category":
            features.append(Feature(one.label, "category", not one.is_optional, one.values, path=where))
        else:
            features.append(Feature(one.label, required=not one.is_optional, path=where))
    if not features:
        raise SakerError("the schema has no field of a number, a category or a time except the identifier")
    notes = [
        "Remove the features that the model does not have, and put the rest into the order of its columns.",
        f"The identifier is {identifier.label}: is it what identifies a record?",
        *_vocabularies(features),
        *(f"Left out: {one.label} ({one.type})." for one in fields if one.kind == "other"),
    ]
    return Contract(tuple(features), str(identifier.path[-1]), _where(identifier, str(identifier.path[-1]))), notes


def with_paths(contract: Contract, fields: Sequence[SchemaField]) -> tuple[Contract, list[str]]:
    """The contract with the path of each feature's field; and notes on those that the schema does not have, or has twice.

    A field is a feature's if its whole path or its last key has the feature's name, whatever its case.
    """
    by_name: dict[str, list[SchemaField]] = defaultdict(list)
    for one in fields:
        for name in {_plain(one.label), _plain(str(one.path[-1]))}:
            by_name[name].append(one)
    notes: list[str] = []
    features = []
    for feature in contract.features:
        exact = [one for one in fields if one.label == feature.field]
        found = exact or by_name[_plain(feature.field)]
        if len(found) == 1:
            where = found[0].label if feature.kind == "derived" else _where(found[0], feature.name)
            features.append(replace(feature, source=None, path=where))
            continue
        several = ", ".join(one.label for one in found)
        notes.append(f"{feature.name}: {f'several fields have this name: {several}' if found else 'no field has this name'}.")
        features.append(feature)
    identifier = next((one for one in by_name[_plain(contract.id_field)]), None) or _identifier(fields)
    notes.append(f"The identifier is {identifier.label}: is it what identifies a record?")
    name = str(identifier.path[-1])
    contract = replace(contract, features=tuple(features), id_field=name, id_path=_where(identifier, name))
    return contract, [*notes, *_vocabularies(features)]


def _plain(name: str) -> str:
    return "".join(one for one in name.lower() if one.isalnum())


def _where(one: SchemaField, name: str | None = None) -> str | None:
    """Its path, None where a feature of this name is at the top of the record anyway."""
    return None if one.path == (name or one.label,) else one.label


def _identifier(fields: Sequence[SchemaField]) -> SchemaField:
    """The likeliest: a name such as id, a name that ends so, a text or a whole number; near the top first."""
    able = [one for one in fields if one.kind in ("category", "number") and not one.values]
    if not able:
        raise SakerError("the schema has no field that could identify a record: expected one of text or whole numbers")

    def rank(one: SchemaField) -> tuple[bool, bool, int, bool]:
        name = _plain(str(one.path[-1]))
        return name not in _IDENTIFIERS, not name.endswith("id"), len(one.path), one.is_optional

    return min(able, key=rank)


def _vocabularies(features: Sequence[Feature]) -> list[str]:
    empty = [feature.name for feature in features if feature.kind == "category" and not feature.vocabulary]
    return [f"Fill in the vocabulary, in the order of the model's codes: {', '.join(empty)}."] if empty else []
