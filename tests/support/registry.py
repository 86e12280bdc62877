"""A schema registry that can be broken: a proxy in front of a real one."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


def register(url: str, subject: str, schema: Any, kind: str = "AVRO") -> int:
    """The id of a schema in the registry."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    body = json.dumps({"schema": text, "schemaType": kind}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/subjects/{subject}/versions", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        number: int = json.load(answer)["id"]
        return number


class BreakableRegistry:
    """mode: up; down (503), slow (3 s), silent (no answer), denied (401), or nonsense (a page of another server)."""

    def __init__(self, real: str) -> None:
        self.mode, self.requests = "up", list[str]()
        self.headers: dict[str, str] = {}
        parts = urlsplit(real)
        registry, base = self, f"{parts.scheme}://{parts.netloc}"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.requests.append(self.path)
                registry.headers = {name.lower(): value for name, value in self.headers.items()}
                self.reply(registry.answer(base + self.path))

            def do_POST(self) -> None:
                registry.requests.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(registry.answer(base + self.path, body))

            def reply(self, answer: tuple[int, bytes]) -> None:
                status, body = answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}{parts.path}"

    def answer(self, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        match self.mode:
            case "down":
                return 503, b'{"error_code":50302,"message":"no leader"}'
            case "denied":
                return 401, b'{"error_code":401,"message":"no"}'
            case "nonsense":
                return 404, b"<html>not found</html>"
            case "slow":
                time.sleep(3)
        # Of a registry that knows schemas by GUIDs, too: here that of schema 7 is the UUID of the number 7.
        if (guid := url.rpartition("/guids/"))[1]:
            url = f"{guid[0]}/ids/{uuid.UUID(guid[2]).int}"
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body else {})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def breakable(real: str) -> Iterator[BreakableRegistry]:
    registry = BreakableRegistry(real)
    threading.Thread(target=registry.server.serve_forever, daemon=True).start()
    try:
        yield registry
    finally:
        registry.server.shutdown()
        registry.server.server_close()
