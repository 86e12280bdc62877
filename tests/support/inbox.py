"""A webhook and a mail server that keep what Alertmanager sends, and a wait for what a server reports only when asked."""

from __future__ import annotations

import itertools
import json
import re
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def until(what: str, true: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.2)  # between two questions to a server that tells nothing by itself
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


class Inbox:
    """What Slack and the mail server would have got."""

    def __init__(self) -> None:
        self.slack: list[dict[str, Any]] = []
        self.mail: list[str] = []
        inbox = self

        class Webhook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.slack.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        class Mail(socketserver.StreamRequestHandler):
            """As much of RFC 5321 as takes a message."""

            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                for line in self.rfile:
                    word = line[:4].upper()
                    if word == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        lines = itertools.takewhile(lambda text: text != b".\r\n", self.rfile)
                        inbox.mail.append(b"".join(lines).decode())
                    elif word == b"QUIT":
                        self.wfile.write(b"221 bye\r\n")
                        return
                    self.wfile.write(b"250 ok\r\n")

        self.webhook = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
        self.smtp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
        for server in (self.webhook, self.smtp):
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def titles(self) -> set[str]:
        return {message["attachments"][0]["title"] for message in self.slack}

    def await_title(self, title: str, seconds: float = 120) -> dict[str, Any]:
        """The message with this title, whatever number of alerts it tells of."""
        pattern = re.compile(re.escape(title) + r"( \(\d+\))?")

        def found() -> list[dict[str, Any]]:
            return [message for message in self.slack if pattern.fullmatch(message["attachments"][0]["title"])]

        messages = until(f"{title} in {sorted(self.titles())}", found, seconds)
        return dict(messages[-1]["attachments"][0])
