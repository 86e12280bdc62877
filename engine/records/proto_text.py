"""Sources in the Protocol Buffers language (proto2, proto3), as schema registries keep them, to a FileDescriptorProto.

It reads what decides how a message is encoded: messages, fields, enums, oneofs, maps. Options, services, extensions and
reserved names are stepped over. Names of types stay as they are written; `proto_messages` resolves them.
"""

from __future__ import annotations

import re

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from saker.engine.records.content import SchemaError

_TOKEN = re.compile(
    r"""\s+ | //[^\n]* | /\*.*?\*/
    | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')
    | (?P<number>0[xX][0-9a-fA-F]+ | [0-9][0-9a-zA-Z_.]*)
    | (?P<word>\.?[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    | (?P<mark>[{}\[\]()<>;,=:+\-./])""",
    re.VERBOSE | re.DOTALL,
)
_SCALARS = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in (
        "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
        "sfixed64", "bool", "string", "bytes",
    )
}  # fmt: skip
_LABELS = {"optional": 1, "required": 2, "repeated": 3}
_MAX_NESTING = 64


def parse_proto(text: str) -> FileDescriptorProto:
    """Raises `SchemaError` with the line of what is not understood."""
    return _Parser(text).file()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._at = text, list[tuple[str, int]](), 0
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._error(position, f"{text[position]!r} is not understood")
            if found.lastgroup is not None:
                self._tokens.append((found.group(), position))
            position = found.end()
        self.proto = FileDescriptorProto()

    def _error(self, position: int, what: str) -> SchemaError:
        return SchemaError(f"line {self._text.count(chr(10), 0, position) + 1}: {what}")

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _fail(self, expected: str) -> SchemaError:
        position = self._tokens[self._at][1] if self._at < len(self._tokens) else len(self._text)
        return self._error(position, f"expected {expected}, got {self._peek()[:50] or 'the end'}")

    def _next(self, expected: str = "") -> str:
        token = self._peek()
        if not token or (expected and token != expected):
            raise self._fail(repr(expected) if expected else "more")
        self._at += 1
        return token

    def _take(self, token: str) -> bool:
        if self._peek() == token:
            self._at += 1
            return True
        return False

    def _name(self, what: str) -> str:
        if not re.fullmatch(r"[A-Za-z_]\w*", self._peek()):
            raise self._fail(what)
        return self._next()

    def _integer(self) -> int:
        sign = -1 if self._take("-") else 1
        try:
            return sign * int(self._peek(), 8 if re.fullmatch("0[0-7]+", self._peek()) else 0)
        except ValueError:
            raise self._fail("a whole number") from None
        finally:
            self._at += 1

    def _skip_statement(self) -> None:
        """Up to a semicolon, or over a block in braces."""
        depth = 0
        while True:
            token = self._next()
            depth += (token in ("{", "[", "(")) - (token in (")", "]", "}"))
            if depth == 0 and token in (";", "}"):
                return

    def _skip_options(self) -> None:
        if self._take("["):
            depth = 1
            while depth:
                token = self._next()
                depth += (token in ("[", "{")) - (token in ("]", "}"))

    def file(self) -> FileDescriptorProto:
        self.proto.syntax = "proto2"
        while word := self._peek():
            match word:
                case "syntax":
                    self._at += 1
                    self._next("=")
                    self.proto.syntax = self._next().strip("\"'")
                    if self.proto.syntax not in ("proto2", "proto3"):
                        raise self._fail("the syntax proto2 or proto3 before this")
                case "edition":
                    raise self._fail("proto2 or proto3 (give a descriptor file for an edition)")
                case "package":
                    self._at += 1
                    self.proto.package = self._next()
                case "message":
                    self._message(self.proto.message_type.add(), 0)
                    continue
                case "enum":
                    self._enum(self.proto.enum_type.add())
                    continue
                case ";":
                    pass
                case "import" | "option" | "service" | "extend":
                    self._skip_statement()
                    continue
                case _:
                    raise self._fail("a message, an enum or another definition")
            self._next(";")
        return self.proto

    def _message(self, message: DescriptorProto, depth: int) -> None:
        if depth > _MAX_NESTING:
            raise self._fail(f"messages that nest at most {_MAX_NESTING} deep")
        self._next("message")
        message.name = self._name("the name of a message")
        self._next("{")
        while not self._take("}"):
            match self._peek():
                case "message" if self._is_definition():
                    self._message(message.nested_type.add(), depth + 1)
                case "enum" if self._is_definition():
                    self._enum(message.enum_type.add())
                case "oneof" if self._is_definition():
                    self._oneof(message)
                case "option" | "reserved" | "extensions" | "extend":
                    self._skip_statement()
                case ";":
                    self._at += 1
                case _:
                    self._field(message, None)
        for field in message.field:  # each optional field of proto3 has a separate oneof, after the others
            if field.proto3_optional:
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field.name}")

    def _is_definition(self) -> bool:
        """`message Name {`, and not a field of a type that is called message."""
        return self._at + 2 < len(self._tokens) and self._tokens[self._at + 2][0] == "{"

    def _oneof(self, message: DescriptorProto) -> None:
        self._next("oneof")
        place = len(message.oneof_decl)
        message.oneof_decl.add().name = self._name("the name of a oneof")
        self._next("{")
        while not self._take("}"):
            if self._peek() == "option":
                self._skip_statement()
            elif not self._take(";"):
                self._field(message, place)

    def _field(self, message: DescriptorProto, oneof: int | None) -> None:
        field = message.field.add(label=1)
        if oneof is not None:
            field.oneof_index = oneof
        if self._peek() in _LABELS:
            label = self._next()
            field.label = _LABELS[label]
            field.proto3_optional = label == "optional" and self.proto.syntax == "proto3"
        if self._peek() == "map":
            self._map_type(message, field)
        elif self._peek() == "group":
            raise self._fail("a field other than a group, which is not supported")
        else:
            self._type(field)
        field.name = self._name("the name of a field")
        if field.type_name.startswith("<map>"):
            entry = message.nested_type[-1]
            entry.name = "".join(part[:1].upper() + part[1:] for part in field.name.split("_")) + "Entry"
            field.type_name = entry.name
        self._next("=")
        field.number = self._integer()
        self._skip_options()
        self._next(";")

    def _type(self, field: FieldDescriptorProto) -> None:
        name = self._next()
        if not re.fullmatch(r"\.?[A-Za-z_][\w.]*", name):
            self._at -= 1
            raise self._fail("a type")
        if name in _SCALARS:
            field.type = _SCALARS[name]
        else:
            field.type_name = name

    def _map_type(self, message: DescriptorProto, field: FieldDescriptorProto) -> None:
        self._next("map")
        self._next("<")
        entry = message.nested_type.add()
        entry.options.map_entry = True
        for number, name in ((1, "key"), (2, "value")):
            inner = entry.field.add(name=name, number=number, label=1)
            self._type(inner)
            self._next("," if number == 1 else ">")
        field.label, field.type_name = 3, "<map>"

    def _enum(self, enum: EnumDescriptorProto) -> None:
        self._next("enum")
        enum.name = self._name("the name of an enum")
        self._next("{")
        while not self._take("}"):
            if self._peek() in ("option", "reserved") and self._tokens[self._at + 1][0] != "=":
                self._skip_statement()
            elif not self._take(";"):
                name = self._name("the name of a value")
                self._next("=")
                enum.value.add(name=name, number=self._integer())
                self._skip_options()
                self._next(";")
