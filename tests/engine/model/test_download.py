"""A server that sends for ever does not keep a pool from following its model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from saker.engine.apart import NotDone
from saker.engine.model.download import download


@pytest.fixture
def endless() -> Iterator[tuple[str, threading.Event]]:
    """The address of a server that answers each request with a byte every now and then; and whether it was asked."""
    done, asked = threading.Event(), threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not done.wait(0.1):
                    self.wfile.write(b" ")
                    self.wfile.flush()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    done.set()
    server.shutdown()
    server.server_close()


def test_a_download_that_never_ends_is_given_up(endless: tuple[str, threading.Event], tmp_path: Path) -> None:
    address, asked = endless
    with pytest.raises(NotDone, match="not done after 20 s"):
        download(f"{address}/api/2.0/mlflow-artifacts/artifacts/model.onnx", tmp_path, address, seconds=20)
    assert asked.is_set()


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotDone, match="No such"):
        download(f"file://{tmp_path}/nothing/model.onnx", tmp_path, f"sqlite:///{tmp_path}/mlflow.db", seconds=60)
