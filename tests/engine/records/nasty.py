"""Records written by hand with the outcome that they must have, whoever decodes them, in each state of the decoder."""

from __future__ import annotations

#: Columns that are not NaN, by name; or the reason and the field of the rejection.
Expected = dict[str, float] | tuple[str, str | None]


def record(body: str) -> bytes:
    """A record whose required fields are in order, with `body` in the middle."""
    return ('{"id":7,"amount":1,' + body + ',"must":"y"}').encode()


def ok(**columns: float) -> Expected:
    """Accepted; columns that are not named are as in a record without them."""
    return {"amount": 1.0, "must": 1.0} | columns


def no(reason: str, field: str | None = None) -> Expected:
    return (reason, field)


F32_MAX = 3.4028234663852886e38
LONG = "a_name_that_is_longer_than_any_token_can_be"
DEEP = 63  # arrays within the record, which is the 64th level

NASTY: list[tuple[str, bytes | None, Expected]] = [
    # plain values
    ("integer", record('"ratio":68'), ok(ratio=68.0)),
    ("negative zero", record('"ratio":-0'), ok(ratio=-0.0)),
    ("negative zero point zero", record('"ratio":-0.0'), ok(ratio=-0.0)),
    ("exponent", record('"ratio":1E+2'), ok(ratio=100.0)),
    ("negative exponent", record('"ratio":25e-1'), ok(ratio=2.5)),
    ("zero with exponent", record('"ratio":0e5'), ok(ratio=0.0)),
    ("fifteen digits", record('"ratio":123456789012345'), ok(ratio=123456789012345.0)),
    ("sixteen digits", record('"ratio":1234567890123456'), ok(ratio=1234567890123456.0)),
    ("fourteen digits and a point", record('"ratio":12345678.901234'), ok(ratio=12345678.901234)),
    ("nineteen digits", record('"ratio":0.1234567890123456789'), ok(ratio=0.1234567890123456789)),
    ("forty digits", record('"ratio":0.1234567890123456789012345678901234567891'), ok(ratio=0.12345678901234568)),
    ("rounds twice: float64 first", record('"ratio":1.00000017881393432617187499'), ok(ratio=1.0000001788139343)),
    ("largest float32", record('"ratio":3.4028234663852886e38'), ok(ratio=F32_MAX)),
    ("rounds down to the largest float32", record('"ratio":3.4028235677973362e38'), ok(ratio=F32_MAX)),
    ("rounds up out of float32", record('"ratio":3.4028235677973366e38'), no("out_of_range", "ratio")),
    ("negative out of float32", record('"ratio":-1e39'), no("out_of_range", "ratio")),
    ("out of float64", record('"ratio":1e400'), no("out_of_range", "ratio")),
    ("absurd exponent", record('"ratio":1e99999999999999999999'), no("out_of_range", "ratio")),
    ("absurd negative exponent", record('"ratio":1e-99999999999999999999'), ok(ratio=0.0)),
    ("four hundred digits", record('"ratio":' + "9" * 400), no("out_of_range", "ratio")),
    ("subnormal float32", record('"ratio":1e-45'), ok(ratio=1.401298464324817e-45)),
    ("below float32", record('"ratio":1e-46'), ok(ratio=0.0)),
    ("below float64", record('"ratio":-1e-400'), ok(ratio=-0.0)),
    # missing
    ("null", record('"ratio":null'), ok()),
    ("empty text", record('"ratio":""'), ok()),
    ("null category", record('"device":null'), ok()),
    ("empty category", record('"device":""'), ok()),
    ("null source of derived columns", record('"t":null'), ok()),
    ("null in a required number", b'{"id":1,"amount":null,"must":"y"}', no("missing_field", "amount")),
    ("empty text in a required number", b'{"id":1,"amount":"","must":"y"}', no("missing_field", "amount")),
    ("required number absent", b'{"id":1,"must":"y"}', no("missing_field", "amount")),
    ("required category null", b'{"id":1,"amount":1,"must":null}', no("missing_field", "must")),
    ("two missing: the first of the contract", b'{"id":1}', no("missing_field", "amount")),
    ("identifier absent", b'{"amount":1,"must":"y"}', no("missing_field", "id")),
    ("identifier null", b'{"id":null,"amount":1,"must":"y"}', no("missing_field", "id")),
    ("identifier empty", b'{"id":"","amount":1,"must":"y"}', no("missing_field", "id")),
    ("empty object", b"{}", no("missing_field", "id")),
    # numbers as text
    ("number as text", record('"ratio":"68.5"'), ok(ratio=68.5)),
    ("escaped number as text", record('"ratio":"\\u0036\\u0038.5"'), ok(ratio=68.5)),
    ("long number as text", record('"ratio":"123456789.123456789123456789"'), ok(ratio=123456789.12345679)),
    ("text null", record('"ratio":"null"'), no("wrong_type", "ratio")),
    ("number as text that ends in an escape", record('"ratio":"12\\u0030"'), ok(ratio=120.0)),
    ("number as text and more", record('"ratio":"12a"'), no("wrong_type", "ratio")),
    ("minus as text", record('"ratio":"-"'), no("wrong_type", "ratio")),
    ("sixteen bytes of number as text", record('"ratio":"-1234567.8901234"'), ok(ratio=-1234567.8901234)),
    ("text with a blank at the end", record('"ratio":"12 "'), no("wrong_type", "ratio")),
    ("text of two numbers", record('"ratio":"1,2"'), no("wrong_type", "ratio")),
    ("required number as text null", b'{"id":1,"amount":"null","must":"y"}', no("wrong_type", "amount")),
    ("text nan", record('"ratio":"nan"'), no("wrong_type", "ratio")),
    ("text with blanks", record('"ratio":" 12 "'), no("wrong_type", "ratio")),
    ("text with underscore", record('"ratio":"1_000"'), no("wrong_type", "ratio")),
    ("full-width digits", record('"ratio":"１２"'), no("wrong_type", "ratio")),
    ("text with plus", record('"ratio":"+1"'), no("wrong_type", "ratio")),
    ("text with leading zero", record('"ratio":"01"'), no("wrong_type", "ratio")),
    ("text ending in a point", record('"ratio":"1."'), no("wrong_type", "ratio")),
    ("text out of range", record('"ratio":"1e39"'), no("out_of_range", "ratio")),
    ("text with a NUL after the number", record('"ratio":"1\\u0000"'), no("wrong_type", "ratio")),
    ("hexadecimal text", record('"ratio":"0x10"'), no("wrong_type", "ratio")),
    ("text Infinity", record('"ratio":"Infinity"'), no("wrong_type", "ratio")),
    # categories
    ("known text", record('"device":"app"'), ok(device=1.0)),
    ("unknown text", record('"device":"fax"'), ok()),
    ("text that begins like a known one", record('"device":"apps"'), ok()),
    ("text with a NUL, else known", record('"device":"app\\u0000"'), ok()),
    ("not ASCII", record('"device":"café"'), ok(device=2.0)),
    ("escaped, not ASCII", record('"device":"caf\\u00e9"'), ok(device=2.0)),
    ("escaped slash and letter", record('"device":"\\u0061pp"'), ok(device=1.0)),
    ("more than 16 bytes", record('"device":"a long name of a device"'), ok(device=3.0)),
    ("more than 16 bytes, unknown", record('"device":"a long name of a devica"'), ok()),
    ("surrogate pair", record('"device":"\\ud83d\\ude00"'), ok()),
    ("number for a text category", record('"device":1'), no("wrong_type", "device")),
    ("numeric category", record('"card":13926'), ok(card=13926.0)),
    ("numeric category as text", record('"card":"13926"'), ok(card=13926.0)),
    ("text for a numeric category", record('"card":"visa"'), no("wrong_type", "card")),
    # derived
    ("hour and day", record('"t":90000'), ok(t=90000.0, hour=1.0, day=1.0)),
    ("before 1970", record('"t":-1'), ok(t=-1.0, hour=23.0, day=6.0)),
    ("fraction of a second before midnight", record('"t":86399.999'), ok(t=86399.999, hour=23.0, day=0.0)),
    ("enormous time: floor of the float64 quotient", record('"t":1e30'), ok(t=1e30, hour=0.0, day=5.0)),
    # wrong kinds
    ("true", record('"ratio":true'), no("wrong_type", "ratio")),
    ("false for a category", record('"device":false'), no("wrong_type", "device")),
    ("array", record('"ratio":[1]'), no("wrong_type", "ratio")),
    ("object for a category", record('"device":{"a":1}'), no("wrong_type", "device")),
    ("true as identifier", b'{"id":true,"amount":1,"must":"y"}', no("wrong_type", "id")),
    ("array as identifier", b'{"id":[],"amount":1,"must":"y"}', no("wrong_type", "id")),
    ("the first of two faults counts", record('"ratio":true,"device":1'), no("wrong_type", "ratio")),
    ("a fault before a missing field", b'{"id":1,"ratio":[],"must":"y"}', no("wrong_type", "ratio")),
    # keys
    ("repeated key", record('"ratio":1,"ratio":1'), no("repeated_field", "ratio")),
    ("repeated identifier", record('"id":7'), no("repeated_field", "id")),
    ("repeated in another spelling", record('"ratio":1,"r\\u0061tio":1'), no("repeated_field", "ratio")),
    ("repeated unknown key", record('"zz":1,"zz":2'), no("repeated_field", "zz")),
    ("repeated unknown key in another spelling", record('"zz":1,"z\\u007a":2'), no("repeated_field", "zz")),
    ("repeated key within an unknown object", record('"zz":{"a":1,"a":2}'), ok()),
    ("escaped key", record('"r\\u0061tio":2'), ok(ratio=2.0)),
    ("key that is not ASCII", record('"montant_été":3'), ok(montant_été=3.0)),
    ("the same, escaped", record('"montant_\\u00e9t\\u00e9":3'), ok(montant_été=3.0)),
    ("long key", record(f'"{LONG}":4'), ok(**{LONG: 4.0})),
    ("key that begins like another", record('"rati":1,"ratios":2'), ok()),
    ("empty key", record('"":1'), ok()),
    # unknown values
    ("unknown nested values", record('"x":{"a":[1,{"b":[]},{}],"c":"]}"},"y":[[],[[]]]'), ok()),
    ("unknown number out of range", record('"x":1e999'), ok()),
    ("as deep as allowed", record('"x":' + "[" * DEEP + "]" * DEEP), ok()),
    ("one too deep", record('"x":' + "[" * (DEEP + 1) + "]" * (DEEP + 1)), no("too_deep")),
    ("one too deep in a feature", record('"ratio":' + '{"a":' * (DEEP + 1) + "1" + "}" * (DEEP + 1)), no("too_deep")),
    ("brackets within a text are no depth", record('"x":"' + "[" * 200 + '"'), ok()),
    ("very deep", b"[" * 100_000, no("too_deep")),
    # white space
    ("white space everywhere", b' \r\n{ "id" :\t7 ,\n"amount" : 1 , "must":"y" } \n', ok()),
    ("form feed is no white space", record('"ratio":\f1'), no("invalid_json")),
    # not JSON
    ("leading zero", record('"ratio":01'), no("invalid_json")),
    ("negative leading zero", record('"ratio":-01.5'), no("invalid_json")),
    ("plus", record('"ratio":+1'), no("invalid_json")),
    ("no digit after the point", record('"ratio":1.'), no("invalid_json")),
    ("no digit before the point", record('"ratio":.5'), no("invalid_json")),
    ("two points", record('"ratio":1.2.3'), no("invalid_json")),
    ("minus alone", record('"ratio":-'), no("invalid_json")),
    ("no exponent", record('"ratio":1e'), no("invalid_json")),
    ("no exponent after its sign", record('"ratio":1e+'), no("invalid_json")),
    ("letters after a number", record('"ratio":12abc'), no("invalid_json")),
    ("NaN", record('"ratio":NaN'), no("invalid_json")),
    ("Infinity", record('"ratio":-Infinity'), no("invalid_json")),
    ("nul", record('"ratio":nul'), no("invalid_json")),
    ("nulll", record('"ratio":nulll'), no("invalid_json")),
    ("True", record('"ratio":True'), no("invalid_json")),
    ("single quotes", b"{'id':7}", no("invalid_json")),
    ("comma at the end", b'{"id":7,"amount":1,"must":"y",}', no("invalid_json")),
    ("two commas", record('"ratio":1,,"device":"app"'), no("invalid_json")),
    ("no comma", record('"ratio":1 "device":"app"'), no("invalid_json")),
    ("no colon", record('"ratio" 1'), no("invalid_json")),
    ("no value", record('"ratio":'), no("invalid_json")),
    ("cut off", record('"ratio":1')[:-4], no("invalid_json")),
    ("cut off in an escape", b'{"id":"\\u00', no("invalid_json")),
    ("something after the end", record('"ratio":1') + b"x", no("invalid_json")),
    ("two records", record('"ratio":1') * 2, no("invalid_json")),
    ("NUL after the end", record('"ratio":1') + b"\0", no("invalid_json")),
    ("NUL in front", b"\0" + record('"ratio":1'), no("invalid_json")),
    ("control character in a text", record('"device":"a\tb"'), no("invalid_json")),
    ("NUL in a text", record('"device":"a\0b"'), no("invalid_json")),
    ("unknown escape", record('"device":"\\x41"'), no("invalid_json")),
    ("bad hexadecimal", record('"device":"\\u00g0"'), no("invalid_json")),
    ("lone high surrogate", record('"device":"\\ud800"'), no("invalid_json")),
    ("lone low surrogate", record('"device":"\\udc00"'), no("invalid_json")),
    ("high surrogate and a letter", record('"device":"\\ud800\\u0041"'), no("invalid_json")),
    ("lone surrogate in an unknown key", record('"\\ud800":1'), no("invalid_json")),
    ("lone surrogate deep in an unknown value", record('"x":[{"a":"\\udfff"}]'), no("invalid_json")),
    ("byte order mark", b"\xef\xbb\xbf" + record('"ratio":1'), no("invalid_json")),
    ("wrong bracket", record('"x":[1}'), no("invalid_json")),
    ("comment", record('"ratio":1/**/'), no("invalid_json")),
    ("a fault and bad JSON", record('"ratio":true')[:-1], no("invalid_json")),
    ("blank", b"  ", no("invalid_json")),
    # not UTF-8
    ("byte FF in a text", record('"device":"x"').replace(b"x", b"\xff"), no("invalid_json")),
    ("Latin-1", record('"device":"x"').replace(b"x", b"caf\xe9"), no("invalid_json")),
    ("overlong slash", record('"device":"x"').replace(b"x", b"\xc0\xaf"), no("invalid_json")),
    ("encoded surrogate", record('"device":"x"').replace(b"x", b"\xed\xa0\x80"), no("invalid_json")),
    ("above U+10FFFF", record('"device":"x"').replace(b"x", b"\xf4\x90\x80\x80"), no("invalid_json")),
    ("cut off sequence", record('"device":"x"').replace(b"x", b"\xe2\x82"), no("invalid_json")),
    ("bad byte in an unknown key", record('"x":1').replace(b"x", b"\x80"), no("invalid_json")),
    ("bad byte outside a text", record('"ratio":1') + b"\xff", no("invalid_json")),
    # no object
    ("tombstone", None, no("empty_record")),
    ("no bytes", b"", no("empty_record")),
    ("array", b"[1]", no("not_an_object")),
    ("number", b" 12 ", no("not_an_object")),
    ("text", b'"a"', no("not_an_object")),
    ("null", b"null", no("not_an_object")),
    ("cut off array", b"[1,", no("invalid_json")),
]  # fmt: skip

GOOD = [
    b'{"id":1,"amount":5,"ratio":1.5,"device":"web","must":"n"}',
    b'{"id":"a","amount":"5","t":3600,"must":"y","x":[1]}',
]
