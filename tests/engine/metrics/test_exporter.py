"""The port of the metrics: whoever connects and is silent keeps nobody else from reading."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.registry import Collector

from saker.engine.metrics.exporter import serve_http, url_of


class Nothing(Collector):
    def collect(self) -> Iterator[object]:  # type: ignore[override]
        return iter(())


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = serve_http(Nothing(), 0, lambda: True, lambda: True)
    yield server
    server.shutdown()
    server.server_close()


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_silent_connections_are_bounded_and_shut_nobody_out(server: ThreadingHTTPServer) -> None:
    before = threads()
    with ExitStack() as open_ones:
        for _ in range(400):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", server.server_port))).send(b"GET /met")
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/readyz", timeout=30) as answer:
            assert answer.read() == b"ready\n"
        deadline = time.monotonic() + 30
        while threads() - before > 35:  # one for each connection, and the server's own
            assert time.monotonic() < deadline


def test_a_connection_that_breaks_off(server: ThreadingHTTPServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            client.send(b"GET /metrics HTTP/1.1\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/healthz", timeout=30) as answer:
        assert answer.status == 200
    assert "Traceback" not in capfd.readouterr().err


def test_head(server: ThreadingHTTPServer) -> None:
    client = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    for path, length in (("/readyz", 6), ("/metrics", 0)):
        client.request("HEAD", path)
        answer = client.getresponse()
        assert (answer.status, answer.getheader("Content-Length"), answer.read()) == (200, str(length), b"")


def test_ipv6() -> None:
    server = serve_http(Nothing(), 0, lambda: False, lambda: False, "::1")
    try:
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url_of('::1', server.server_port)}/readyz", timeout=30)
    finally:
        server.shutdown()
        server.server_close()
    assert url_of("10.0.0.1", 8000) == "http://10.0.0.1:8000"
