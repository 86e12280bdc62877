"""The contract of a model: one JSON document inside the ONNX file.

Reading it needs the standard library only, so a tool can inspect a model without loading onnxruntime.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from saker.engine.errors import ModelRefused
from saker.engine.onnx_metadata import read_metadata
from saker.engine.paths import Path as FieldPath
from saker.engine.paths import check_paths, parse_path
from saker.engine.velocity import MOST_FEATURES, EventTime, Layout, Velocity, layout_of

#: The newest that this release reads. A contract says version 1 where earlier releases can read it.
FORMAT_VERSION = 3
#: Fields of a result besides the identifier (engine/records/encode.py).
RESULT_FIELDS = ("fraud_score", "is_fraud", "model", "scored_at_ms", "late")
METADATA_KEY = "saker.contract"

Kind = Literal["number", "category", "derived", "velocity"]
#: What a score is: of a custom objective the margin as it is, which the library leaves to its caller to transform.
ScoreMeaning = Literal["probability", "value", "rank", "margin"]


def _hour_of_day(seconds: float) -> float:
    return math.floor(seconds / 3600) % 24


def _day_of_week(seconds: float) -> float:
    return math.floor(seconds / 86400) % 7


def _seconds(seconds: float) -> float:
    return seconds


#: Name -> function of a time in seconds. They may count from any midnight: IEEE-CIS counts from an undisclosed one.
DERIVATIONS: dict[str, Callable[[float], float]] = {
    "hour_of_day": _hour_of_day,
    "day_of_week": _day_of_week,
    "seconds": _seconds,
}
#: Unit of a time that is a number -> how many of them make a second.
UNITS: dict[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the matrix, in the model's order.

    A number is taken as float32. A category becomes its index in `vocabulary`; a value outside it is scored as
    missing, as LightGBM does. A derived feature is `derivation` applied to a time: a number in `unit`, or ISO 8601.
    A velocity feature is `velocity` of the earlier records, which names the fields that it reads.
    An optional feature that is absent or null is NaN; a required one rejects the record.

    `path` is where the value is. Without it, `source` or the name is a key at the top of the record, dots included.
    """

    name: str
    kind: Kind = "number"
    required: bool = False
    vocabulary: tuple[str, ...] = ()
    source: str | None = None
    derivation: str | None = None
    path: str | None = None
    unit: str | None = None
    velocity: Velocity | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("number", "category", "derived", "velocity"):
            raise ModelRefused(f"feature {self.name!r}: kind is {self.kind!r}, expected number, category, derived or velocity")
        if (self.kind == "velocity") != (self.velocity is not None):
            raise ModelRefused(f"feature {self.name!r}: kind velocity needs a definition, and no other kind has one")
        if self.kind == "velocity" and (self.required or self.vocabulary or self.source or self.derivation or self.path):
            raise ModelRefused(f"feature {self.name!r}: a velocity feature has a definition and nothing else")
        if self.source is not None and self.path is not None:
            raise ModelRefused(
                f"feature {self.name!r}: expected source or path, got both; a path such as after.amount does for both"
            )
        if self.kind == "derived" and (not (self.source or self.path) or self.derivation not in DERIVATIONS):
            raise ModelRefused(
                f"feature {self.name!r}: derived needs a source or path, and one of {sorted(DERIVATIONS)}, "
                f"got {self.derivation!r} of {self.source or self.path!r}",
            )
        if self.unit is not None and (self.unit not in UNITS or self.kind != "derived"):
            raise ModelRefused(
                f"feature {self.name!r}: unit is for derived features, one of {', '.join(UNITS)}; got {self.unit!r} for a "
                f"{self.kind}"
            )

    @property
    def field(self) -> str:
        """The record's field that this feature reads, as messages name it."""
        return self.path or self.source or self.name

    @property
    def steps(self) -> FieldPath:
        """Where in the record the field is. Raises `ModelRefused` for a text that is not a path."""
        return parse_path(self.path) if self.path is not None else (self.field,)


@dataclass(frozen=True, slots=True)
class Golden:
    """A raw record, the row it must decode to (null is NaN) and the score it must get.

    history: the earlier records that its velocity features need, in order.
    """

    record: str
    row: tuple[float | None, ...]
    score: float
    history: tuple[str, ...] = ()


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
    #: The identifier's name in results, and where it is in a record: without a path at the top, under its name.
    id_field: str = "TransactionID"
    id_path: str | None = None
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
    #: By which velocity features order the records; without it their Kafka timestamps count.
    event_time: EventTime | None = None

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ModelRefused(f"contract: feature names must be unique, these are repeated: {', '.join(repeated)}")
        if self.id_field in RESULT_FIELDS:
            raise ModelRefused(
                f"contract: the identifier's field is {self.id_field!r}, and a result has a field of that name already: "
                "give the identifier another name in the records, or name another field"
            )
        if self.event_time is not None and self.event_time.unit not in UNITS:
            raise ModelRefused(
                f"contract: unit of the event time is {self.event_time.unit!r}, expected one of {', '.join(UNITS)}"
            )
        velocity = self.velocity
        if len(velocity) > MOST_FEATURES:
            raise ModelRefused(f"contract: expected at most {MOST_FEATURES} velocity features, got {len(velocity)}")
        inputs = {path for _, one in velocity for path in one.paths}
        if velocity and self.event_time is not None:
            inputs.add(self.event_time.path)
        plain = (feature.steps for feature in self.features if feature.velocity is None)
        check_paths([*plain, self.id_steps, *map(parse_path, sorted(inputs))])
        if not math.isfinite(self.threshold) or (self.score == "probability" and not 0 <= self.threshold <= 1):
            raise ModelRefused(f"contract: threshold must be in [0, 1] for a probability, got {self.threshold}")

    @property
    def id_steps(self) -> FieldPath:
        """Where in a record the identifier is."""
        return parse_path(self.id_path) if self.id_path is not None else (self.id_field,)

    @property
    def plain_features(self) -> list[Feature]:
        """Those that read a field of the record."""
        return [feature for feature in self.features if feature.velocity is None]

    @property
    def velocity(self) -> list[tuple[int, Velocity]]:
        """The velocity features, with their columns."""
        return [(at, feature.velocity) for at, feature in enumerate(self.features) if feature.velocity is not None]

    @property
    def velocity_layout(self) -> Layout | None:
        """What velocity features need of a record; None without one."""
        velocity = self.velocity
        return layout_of(velocity, self.event_time) if velocity else None

    @property
    def longest_window_ms(self) -> int:
        """Of the velocity features; 0 without one."""
        return max((one.window_ms for _, one in self.velocity), default=0)

    @property
    def definition(self) -> bytes:
        """What a history of records depends on, as a hash (32 bytes): the velocity features, and which records are accepted.

        Contracts with the same one can use the same histories.
        """
        accepted = sorted(
            {(feature.steps, feature.kind, feature.required, feature.unit) for feature in self.plain_features}, key=repr
        )
        parts = (1, self.id_steps, accepted, self.event_time, [one for _, one in self.velocity])
        return hashlib.sha256(repr(parts).encode()).digest()

    @property
    def format_version(self) -> int:
        """3 with velocity features; 2 with paths, units, or times in seconds."""
        if self.velocity:
            return 3
        is_new = any(feature.path or feature.unit or feature.derivation == "seconds" for feature in self.features)
        return 2 if is_new or self.id_path is not None else 1

    def to_json(self) -> str:
        """The document for `metadata_props`; features omit default values."""
        document = asdict(self) | {"format_version": self.format_version}
        for key in ("id_path", "event_time"):
            if document[key] is None:
                del document[key]
        for golden in document["golden"]:
            if not golden["history"]:
                del golden["history"]
        document["features"] = [
            {
                item.name: asdict(value) if isinstance(value := getattr(feature, item.name), Velocity) else value
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
                features=tuple(map(_feature, document["features"])),
                id_field=document["id_field"],
                id_path=document.get("id_path"),
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
                golden=tuple(
                    Golden(g["record"], tuple(g["row"]), g["score"], tuple(g.get("history", ()))) for g in document["golden"]
                ),
                event_time=EventTime(**found) if (found := document.get("event_time")) else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelRefused(f"contract: the document in the model is damaged ({error!r}); export it again") from error


def _feature(document: dict[str, Any]) -> Feature:
    velocity = document.get("velocity")
    if velocity is not None:
        velocity = Velocity(**{**velocity, "by": tuple(velocity["by"])})
    return Feature(**{**document, "vocabulary": tuple(document.get("vocabulary", ())), "velocity": velocity})


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
