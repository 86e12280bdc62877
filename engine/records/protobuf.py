"""Protocol Buffers: what a schema says, which part of it a contract needs, and the reference reader, which is upb.

    source or descriptors --> messages --> `Plan`: the fields on paths and the members of their oneofs, and no others
                                             |--> a class of the protobuf package (upb) made of these alone: the reference
                                             |--> tables for native/rows/protobuf.c (protobuf_tables.py)

What is not in the plan is an unknown field to both: it is stepped over, whatever it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

from saker.engine.contract import Feature
from saker.engine.field_tree import Branch, Field
from saker.engine.records import rejection as faults
from saker.engine.records.content import Map, Moment, Number, Object, Refused, SchemaError
from saker.engine.records.proto_messages import Enum, Message, ProtoField

_INTEGERS = {
    "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64",
}  # fmt: skip
WRAPPED = {
    f"google.protobuf.{name}Value": kind
    for name, kind in (
        ("Double", "double"), ("Float", "float"), ("Int64", "int64"), ("UInt64", "uint64"), ("Int32", "int32"),
        ("UInt32", "uint32"), ("Bool", "bool"), ("String", "string"), ("Bytes", "bytes"),
    )
}  # fmt: skip
_LAST_NUMBER = 2**29 - 1
TIMESTAMP = "google.protobuf.Timestamp"

# ---- what a contract needs ----


@dataclass(slots=True, eq=False)
class Item:
    """A field of a plan. how: value, message, time, wrapper, elements, map; or sibling, for what only ends a oneof."""

    field: ProtoField
    how: str
    #: Of a message, or of the elements or values that are messages.
    plan: Plan | None = None


@dataclass(slots=True, eq=False)
class Plan:
    """The part of a message that is needed, in the order of its fields."""

    message: Message
    items: list[Item] = field(default_factory=list)


_NUMBERS = _INTEGERS | {"float", "double", "bool", "string"}
_TEXTS = _INTEGERS | {"bool", "string", "enum"}
_KEY = ("a key (string, enum, bool, number)", _NUMBERS | _TEXTS)


def plan_of(message: Message, node: Branch) -> Plan:
    """Raises `Refused` where the contract needs what the message does not have."""
    return _plan(message, [node])


def _refuse(label: str, why: str) -> Refused:
    return Refused(faults.Fault("schema_mismatch", why), label)


def _plan(message: Message, nodes: list[Branch]) -> Plan:
    fields = {one.name: one for one in message.fields}
    for node in nodes:
        for name, child in node.children.items():
            if name not in fields:
                inside = list(child.fields()) if isinstance(child, Branch) else [child]
                if needed := next((one for one in inside if one.required or one.is_identifier), None):
                    raise _refuse(needed.label, "is required and not in the schema")
    plan = Plan(message)
    oneofs = {fields[str(name)].oneof for node in nodes for name in node.children if name in fields} - {None}
    for one in message.fields:
        children = [node.children[one.name] for node in nodes if one.name in node.children]
        if children:
            plan.items.append(_item(one, children))
        elif one.oneof in oneofs:
            inner = Plan(one.type) if isinstance(one.type, Message) else None
            plan.items.append(Item(one, "sibling", inner))
    return plan


def _item(one: ProtoField, children: list[Branch | Field]) -> Item:
    """How a field gives what the contract reads there. (Several children: of the elements of one array.)"""
    is_map = isinstance(one.type, Message) and one.type.is_map_entry
    first = children[0]
    label = first.label
    if one.kind == "unknown":
        raise _refuse(label, "is of a type that the schema does not define")
    if isinstance(first, Field):
        return _value_item(one, [child for child in children if isinstance(child, Field)])
    branches = [child for child in children if isinstance(child, Branch)]
    if first.is_array or is_map:
        if first.is_array == is_map or not one.is_repeated:
            raise _refuse(label, f"is {_named(one)} in the schema, expected {'an array' if first.is_array else 'a message'}")
        inner = one.type.fields[1] if is_map and isinstance(one.type, Message) else one
        elements = [child for branch in branches for child in branch.children.values()]
        return Item(one, "map" if is_map else "elements", _elements_plan(inner, elements))
    if one.is_repeated or not isinstance(one.type, Message):
        raise _refuse(label, f"is {_named(one)} in the schema, expected a message")
    return Item(one, "message", _plan(one.type, branches))


def _elements_plan(one: ProtoField, elements: list[Branch | Field]) -> Plan | None:
    """Checks that elements (or values of a map) fit; the plan of those that are messages."""
    leaves = [child for child in elements if isinstance(child, Field)]
    branches = [child for child in elements if isinstance(child, Branch)]
    if leaves:
        single = ProtoField(one.name, one.number, one.kind, one.type, False, True, None, one.is_utf8)
        item = _value_item(single, leaves)
        return item.plan
    if not isinstance(one.type, Message) or any(branch.is_array for branch in branches):
        raise _refuse(branches[0].label, f"is {_named(one)} in the schema, expected a message")
    return _plan(one.type, branches)


def _named(one: ProtoField) -> str:
    name = one.type.name if isinstance(one.type, Message) else one.kind
    return f"repeated {name}" if one.is_repeated else name


def _value_item(one: ProtoField, leaves: list[Field]) -> Item:
    how, kind = "value", one.kind
    if isinstance(one.type, Message):
        if one.type.name == TIMESTAMP:
            how, kind = "time", "time"
        elif one.type.name in WRAPPED:
            how, kind = "wrapper", WRAPPED[one.type.name]
    for leaf in leaves:
        takes = [("an identifier", _TEXTS - {"bool"})] if leaf.is_identifier else []
        takes += [_takes(feature) for _, feature in leaf.columns]
        takes += [_KEY if one.kind == "identity" else ("a number", _NUMBERS | {"time"}) for one in leaf.inputs]
        for what, kinds in takes:
            if one.is_repeated or kind not in kinds:
                raise _refuse(leaf.label, f"is {_named(one)} in the schema, expected {what}")
    plan = None
    if how != "value" and isinstance(one.type, Message):
        plan = Plan(one.type, [Item(inner, "value") for inner in one.type.fields])
    return Item(one, how, plan)


def _takes(feature: Feature) -> tuple[str, set[str]]:
    if feature.kind == "category":
        return "a category (string, enum, bool or a whole number)", _TEXTS
    return ("a time", _NUMBERS | {"time"}) if feature.derivation else ("a number", _NUMBERS | {"time"})


# ---- the reference ----


class ProtobufReader:
    """Reads records of one message for a contract."""

    def __init__(self, plan: Plan, tree: Branch) -> None:
        self._plan, self._tree = plan, tree
        self._class = _message_class(plan)

    def read(self, data: bytes) -> Object:
        """Raises `Refused`."""
        try:
            message = self._class.FromString(data)
        except (DecodeError, RecursionError):
            raise Refused(faults.NOT_PROTOBUF) from None
        return _object(message, self._plan, self._tree)


def _object(message: Any, plan: Plan, node: Branch) -> Object:
    found = Object()
    for item in plan.items:
        child = node.children.get(item.field.name)
        if child is not None and item.how != "sibling":
            found.append((item.field.name, _content(message, item, child)))
    return found


def _content(message: Any, item: Item, child: Branch | Field) -> Any:
    one = item.field
    name = f"f{one.number}"
    if item.how in ("elements", "map") and isinstance(child, Branch):
        return _members(getattr(message, name), item, child)
    if one.has_presence and not message.HasField(name):
        return None
    return _one(getattr(message, name), one, item, child)


def _one(value: Any, one: ProtoField, item: Item, child: Branch | Field) -> Any:
    if isinstance(child, Branch):
        return _object(value, item.plan, child) if item.plan is not None else None
    if isinstance(one.type, Message) and item.plan is not None:
        if one.type.name == TIMESTAMP:
            return Moment(float(value.f1) + value.f2 / 1e9)
        return _scalar(value.f1, item.plan.items[0].field)
    return _scalar(value, one)


def _scalar(value: Any, one: ProtoField) -> Any:
    if one.kind == "enum" and isinstance(one.type, Enum):
        return one.type.names.get(value) or Number(value)
    if one.kind == "string" and isinstance(value, bytes):  # proto2, and not UTF-8
        return value.decode("utf-8", "surrogateescape")
    return Number(value) if one.kind in _INTEGERS else value


def _members(container: Any, item: Item, node: Branch) -> Any:
    """The needed elements of an array, or values of a map."""
    if item.how == "elements":
        last = max(int(index) for index in node.children)
        return [
            _one(container[at], item.field, item, node.children[at]) if at in node.children else None
            for at in range(min(len(container), last + 1))
        ]
    assert isinstance(item.field.type, Message)  # noqa: S101 - a map
    value = item.field.type.fields[1]
    keys = {_key(key): key for key in container}
    return Map(
        (str(name), _one(container[keys[str(name)]], value, item, child))
        for name, child in node.children.items()
        if str(name) in keys
    )


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


# ---- the plan as a schema ----


def _message_class(plan: Plan) -> Any:
    """One file of edition 2023, which has a feature for each thing in which proto2 and proto3 differ."""
    file = FileDescriptorProto(name="plan.proto", syntax="editions", edition=descriptor_pb2.EDITION_2023)
    builder = _FileBuilder(file)
    name = builder.message(plan)
    pool = descriptor_pool.DescriptorPool()
    try:
        pool.Add(file)
    except TypeError as error:
        raise SchemaError(f"it is not valid: {str(error)[:200]}") from None
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


class _FileBuilder:
    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._names: dict[int, str] = {}

    def message(self, plan: Plan) -> str:
        if id(plan) in self._names:
            return self._names[id(plan)]
        name = self._names[id(plan)] = f"M{len(self._names)}"
        proto = self._file.message_type.add(name=name)
        if not plan.items:  # upb takes fields of the number 0 in a message without fields, and in no other
            proto.field.add(name="none", number=_LAST_NUMBER, label=1, type=FieldDescriptorProto.TYPE_BOOL)
        oneofs: dict[int, int] = {}
        for item in plan.items:
            made = proto.field.add(name=f"f{item.field.number}", number=item.field.number, label=1)
            if item.field.oneof is not None:
                place = oneofs.setdefault(item.field.oneof, len(oneofs))
                if place == len(proto.oneof_decl):
                    proto.oneof_decl.add(name=f"o{place}")
                made.oneof_index = place
            if item.how == "map":
                self._map(proto, made, item)
            else:
                self._type(made, item.field, item.plan)
        return name

    def _map(self, message: DescriptorProto, made: FieldDescriptorProto, item: Item) -> None:
        assert isinstance(item.field.type, Message)  # noqa: S101 - a map
        key, value = item.field.type.fields
        entry = message.nested_type.add(name=f"F{item.field.number}Entry")
        entry.options.map_entry = True
        self._type(entry.field.add(name="key", number=1, label=1), key, None, in_map=True)
        self._type(entry.field.add(name="value", number=2, label=1), value, item.plan, in_map=True)
        made.label, made.type = 3, FieldDescriptorProto.TYPE_MESSAGE
        made.type_name = f".{message.name}.{entry.name}"

    def _type(self, made: FieldDescriptorProto, one: ProtoField, plan: Plan | None, *, in_map: bool = False) -> None:
        features = descriptor_pb2.FeatureSet
        if one.is_repeated:
            made.label = 3
        elif not one.has_presence and not in_map:
            made.options.features.field_presence = features.IMPLICIT
        if one.kind == "message" and isinstance(one.type, Message):
            made.type, made.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{self.message(plan or Plan(one.type))}"
        elif one.kind == "enum" and isinstance(one.type, Enum):
            made.type, made.type_name = FieldDescriptorProto.TYPE_ENUM, f".{self._enum(one.type)}"
        else:
            made.type = FieldDescriptorProto.Type.Value(f"TYPE_{one.kind.upper()}")
        if one.kind == "string":
            made.options.features.utf8_validation = features.VERIFY if one.is_utf8 else features.NONE

    def _enum(self, enum: Enum) -> str:
        if id(enum) not in self._names:
            name = self._names[id(enum)] = f"E{len(self._names)}"
            proto = self._file.enum_type.add(name=name)
            features = descriptor_pb2.FeatureSet
            proto.options.features.enum_type = features.CLOSED if enum.is_closed else features.OPEN
            for number in enum.names:
                proto.value.add(name=f"{name}_{number}".replace("-", "_"), number=number)
        return self._names[id(enum)]
