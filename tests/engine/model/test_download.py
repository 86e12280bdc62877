"""A server that sends for ever does not keep a pool from following its model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from saker.engine.model.download import NotFetched, download


@pytest.fixture
def endless() -> Iterator[str]:
    """The address of a server that answers each request with a byte every now and then."""
    done = threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not done.wait(0.1):
                    self.wfile.write(b" ")
                    self.wfile.flush()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    done.set()
    server.shutdown()
    server.server_close()


def test_a_download_that_never_ends_is_given_up(endless: str, tmp_path: Path) -> None:
    with pytest.raises(NotFetched, match="not done after 6 s"):
        download(f"{endless}/model.onnx", tmp_path, endless, seconds=6)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFetched, match="No such"):
        download(f"file://{tmp_path}/nothing/model.onnx", tmp_path, f"sqlite:///{tmp_path}/mlflow.db", seconds=60)
