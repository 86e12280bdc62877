"""Schemas by their ids: a client of Confluent's REST API for schema registries, which Apicurio, Karapace and Redpanda have.

    # registry.properties, named by SAKER_REGISTRY_CONFIG; names are Confluent's
    basic.auth.user.info = user:password      (or)      bearer.auth.token = file:/run/secrets/token
    ssl.ca.location = /etc/ca.pem
    proxy.url = http://proxy:3128

What was read is kept in the user's cache, for when the registry does not answer. Values as in `engine/properties.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote, urlsplit

import urllib3

from saker.engine.config import JSON_RESULTS, RecordSettings, ResultSettings, cache
from saker.engine.errors import SakerError, ServingError
from saker.engine.properties import read_properties
from saker.engine.records.encode import result_schema
from saker.engine.records.envelope import envelope_of
from saker.engine.records.formats import Format, Kind, Schema, UnknownSchema

VARIABLE = "SAKER_REGISTRY_CONFIG"
_ALLOWED = ("basic.auth.user.info", "bearer.auth.token", "ssl.ca.location", "ssl.certificate.location", "ssl.key.location",
            "proxy.url")  # fmt: skip
_log = logging.getLogger("saker")
_TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)
_MOST_BYTES, _MOST_REFERENCES, _MOST_GUIDS = 5_000_000, 200, 10_000
_JSON_TYPES = "application/vnd.schemaregistry.v1+json, application/json"
#: error_code of the API: no such subject, version, schema.
_NOT_FOUND = (40401, 40402, 40403)


class RegistryUnavailable(SakerError):
    """The registry gave no answer, or one that says nothing about the schema."""


class Registry:
    """`Schemas` of a registry. Any thread may call it."""

    def __init__(self, url: str, environment: Mapping[str, str] = os.environ) -> None:
        """url: with the path of Confluent's API, such as http://apicurio:8080/apis/ccompat/v7. Raises `ServingError`."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ServingError(
                "--registry: expected a URL such as https://registry:8081 without a user; "
                f"passwords are in the file that {VARIABLE} names"
            )
        self.url, settings = url.rstrip("/"), read_properties(VARIABLE, _ALLOWED, environment)
        self._headers = {"Accept": _JSON_TYPES, "Content-Type": _JSON_TYPES.partition(",")[0]}
        if user := settings.get("basic.auth.user.info"):
            self._headers |= urllib3.make_headers(basic_auth=user)
        elif token := settings.get("bearer.auth.token"):
            self._headers["Authorization"] = f"Bearer {token}"
        tls = {
            "ca_certs": settings.get("ssl.ca.location"),
            "cert_file": settings.get("ssl.certificate.location"),
            "key_file": settings.get("ssl.key.location"),
        }
        given: dict[str, Any] = {name: value for name, value in tls.items() if value}
        proxy = settings.get("proxy.url")
        self._http = urllib3.ProxyManager(proxy, **given) if proxy else urllib3.PoolManager(**given)
        self._numbers: dict[bytes, int] = {}
        self._guids: dict[int, str] = {}
        self._folder = cache("schemas") / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def get(self, number: int) -> Schema:
        """Raises `UnknownSchema` where the registry says so, and `RegistryUnavailable`."""
        guid = self._guids.get(number)
        name = f"schema {number}" if guid is None else f"schema {guid}"
        path = self._folder / f"{number if guid is None else guid}.json"
        try:
            found = self._found(self._object(f"/schemas/ids/{number}" if guid is None else f"/schemas/guids/{guid}"), [])
            found = found if guid is None else replace(found, name=name)
        except UnknownSchema as error:
            raise UnknownSchema(str(error), name) from None
        except RegistryUnavailable as error:
            if (kept := _read_cached(path)) is None:
                raise
            _log.warning("%s; %s is the one of an earlier answer", error, name)
            return kept if guid is None else replace(kept, name=name)
        _write_cached(path, {"kind": found.kind, "text": found.text, "references": found.references})
        return found

    def number_of(self, guid: bytes) -> int | None:
        """A number for `get`, which no id of a registry can be (they are below 2**31), nor a producer guess."""
        if guid not in self._numbers and len(self._numbers) < _MOST_GUIDS:
            number = 1 << 31 | secrets.randbits(31)
            self._guids[number] = str(uuid.UUID(bytes=guid))
            self._numbers[guid] = number
        return self._numbers.get(guid)

    def versions(self, subject: str) -> list[int]:
        """Of a subject, the oldest first. Raises as `get`."""
        found = self._ask(f"/subjects/{quote(subject, safe='')}/versions")
        if not isinstance(found, list) or not all(type(one) is int for one in found):
            raise RegistryUnavailable(f"{self.url}: the answer has no versions of subject {subject}")
        return sorted(found)

    def version(self, subject: str, version: int | Literal["latest"]) -> tuple[int, int, Schema]:
        """Id, version and schema of a subject. Raises as `get`."""
        answer = self._object(f"/subjects/{quote(subject, safe='')}/versions/{version}")
        if type(answer.get("id")) is not int or type(answer.get("version")) is not int:
            raise RegistryUnavailable(f"{self.url}: subject {subject} has no id in the answer")
        return answer["id"], answer["version"], self._found(answer, [])

    def register(self, subject: str, schema: Schema) -> int:
        """The id of a schema under a subject, where it is added if it is not there yet.

        Raises `ServingError` where the registry does not take it, and `RegistryUnavailable`.
        """
        text = schema.text if schema.kind != "avro" else json.dumps(json.loads(schema.text))
        body = json.dumps({"schema": text, "schemaType": schema.kind.upper()}).encode()
        path = f"/subjects/{quote(subject, safe='')}"
        kept = self._folder / f"registered-{hashlib.sha256(path.encode() + body).hexdigest()[:32]}.json"
        try:
            try:
                answer = self._object(path, body)
            except UnknownSchema:
                answer = self._object(f"{path}/versions", body)
            if type(answer.get("id")) is not int:
                raise RegistryUnavailable(f"{self.url}: the answer has no id")
        except RegistryUnavailable as error:
            if (number := _read_cached_id(kept)) is None:
                raise
            _log.warning("%s; results name schema %d, from an earlier answer", error, number)
            return number
        _write_cached(kept, {"id": answer["id"]})
        return int(answer["id"])

    def _found(self, answer: dict[str, Any], above: list[str]) -> Schema:
        """With what it refers to, what that refers to first."""
        text, kind, references = answer.get("schema"), answer.get("schemaType", "AVRO"), answer.get("references") or []
        if not isinstance(text, str) or not isinstance(kind, str) or not isinstance(references, list):
            raise RegistryUnavailable(f"{self.url}: the answer has no schema")
        found: dict[str, None] = {}
        for reference in references:
            try:
                subject, version = str(reference["subject"]), int(reference["version"])
            except (TypeError, KeyError, ValueError):
                raise RegistryUnavailable(f"{self.url}: a reference of the schema has no subject and version") from None
            name = f"/subjects/{quote(subject, safe='')}/versions/{version}"
            if name in above or len(above) + len(found) > _MOST_REFERENCES:
                raise RegistryUnavailable(f"{self.url}: the references of the schema are a circle, or too many")
            inner = self._found(self._object(name), [*above, name])
            found |= dict.fromkeys((*inner.references, inner.text))
        return Schema(kind.lower(), text, tuple(found))

    def _object(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        answer = self._ask(path, body)
        if not isinstance(answer, dict):
            raise RegistryUnavailable(f"{self.url}{path}: expected an object with a schema, got another answer")
        return answer

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        """The answer to GET, or to POST of a body, which is JSON."""
        try:
            response = self._http.request(
                "GET" if body is None else "POST",
                self.url + path,
                body=body,
                headers=self._headers,
                timeout=_TIMEOUT,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                data = response.read(_MOST_BYTES + 1)
            finally:
                response.close()
        except urllib3.exceptions.HTTPError as error:
            raise RegistryUnavailable(f"{self.url} does not answer: {_told(error)}") from error
        try:
            answer = json.loads(data) if len(data) <= _MOST_BYTES else None
        except (ValueError, RecursionError):
            answer = None
        if response.status == 404 and isinstance(answer, dict) and answer.get("error_code") in _NOT_FOUND:  # noqa: PLR2004
            raise UnknownSchema(f"{self.url}{path}: not found")
        if body is not None and response.status in (409, 422):
            why = answer.get("message") if isinstance(answer, dict) else None
            raise ServingError(f"{self.url}{path} does not take the schema: {str(why)[:300]}")
        if response.status != 200 or answer is None:  # noqa: PLR2004
            hint = f"; is the password in {VARIABLE} right?" if response.status in (401, 403) else ""
            raise RegistryUnavailable(f"{self.url}{path}: status {response.status}, expected 200 with a schema{hint}")
        return answer


def _told(error: Exception) -> str:
    """The innermost reason, without the address of an object."""
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(reason).__name__


def _read_cached(path: Path) -> Schema | None:
    try:
        kept = json.loads(path.read_text())
        return Schema(str(kept["kind"]), str(kept["text"]), tuple(map(str, kept["references"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_cached_id(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_cached(path: Path, answer: dict[str, Any]) -> None:
    """Whole or not at all; without the cache the registry is asked again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(answer, file)
        Path(file.name).replace(path)
    except OSError:
        return


def register_results(kind: str, registry: str | None, topic: str) -> ResultSettings:
    """How results are written to a topic; their schema is then in the registry. Raises `SakerError`."""
    if kind == "json":
        return JSON_RESULTS
    if registry is None:
        raise ServingError(
            f"--output-format {kind}: expected --output-registry URL, where saker registers the schema of results"
        )
    schema = result_schema(cast("Literal['avro', 'protobuf']", kind))
    return ResultSettings(kind, Registry(registry).register(f"{topic}-value", schema))


def register_schema(registry: str | None, topic: str, schema: Schema) -> int | None:
    """The id of a schema for the records of a topic; None without a registry. Raises `SakerError`."""
    if registry is not None and schema.descriptors:
        raise ServingError("--schema: expected a .proto file, which the registry takes; descriptors have no text")
    return None if registry is None else Registry(registry).register(f"{topic}-value", schema)


def open_format(records: RecordSettings) -> Format:
    """How the records of a topic are written. Raises `ServingError` for settings that contradict each other."""
    envelope = envelope_of(records.envelope)
    skip = envelope is not None and envelope.has_deletes if records.skip_deletes is None else records.skip_deletes
    return replace(_plain_format(records), envelope=envelope, skip_deletes=skip)


def _plain_format(records: RecordSettings) -> Format:
    if records.message and records.schema_file is None:
        raise ServingError("--message: expected with --schema FILE; with a registry each record names its message")
    if records.schema_file is not None:
        if records.registry:
            raise ServingError("expected --registry or --schema, got both")
        return Format(cast("Kind", records.format), schema=_schema_of_file(records, records.schema_file))
    if records.registry:
        return Format(cast("Kind", records.format), schemas=Registry(records.registry))
    if records.format != "json":
        raise ServingError(
            f"--format {records.format}: expected --registry URL, or --schema FILE for records without the id of their schema"
        )
    return Format()


def _schema_of_file(records: RecordSettings, path: Path) -> Schema:
    if records.format == "json":
        raise ServingError("--schema: JSON needs no schema; use it with --format avro or protobuf")
    return read_schema(path, records.format, records.message)


def schema_of_file(path: Path, message: str = "") -> Schema:
    """A schema whose kind its file shows: Protobuf by its name, else a JSON schema or Avro. Raises `ServingError`."""
    if path.suffix in (".proto", ".desc", ".pb", ".binpb", ".protoset"):
        return read_schema(path, "protobuf", message)
    found = read_schema(path, "avro", "")
    with contextlib.suppress(ValueError):
        whole = json.loads(found.text)
        if isinstance(whole, dict) and ("$schema" in whole or whole.get("type") == "object" or "properties" in whole):
            return replace(found, kind="json")
    return found


def read_schema(path: Path, kind: str, message: str) -> Schema:
    """Raises `ServingError`."""
    try:
        data = path.read_bytes()
        if kind == "protobuf" and path.suffix != ".proto":
            return Schema("protobuf", "", descriptors=data, message=message)
        return Schema(kind, data.decode(), message=message)
    except (OSError, UnicodeDecodeError) as error:
        raise ServingError(f"--schema: cannot read {path}: {error}") from error
