"""Prometheus and Alertmanager with the configuration of deploy/, on addresses of this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import deploy
from deploy.local.debian import own_files, program
from deploy.local.server import Server, answers, free_port

_DEPLOY = Path(deploy.__file__ or "").parent
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hastened(text: str, factor: float) -> str:
    """A configuration or rules with all their durations `factor` times as short: for tests that cannot wait for an hour."""

    def shorter(match: re.Match[str]) -> str:
        return f"{match[1]}{round(int(match[2]) * _SECONDS[match[3]] * 1000 / factor)}ms{match[4]}"

    return re.sub(r"(\[|: |offset )(\d+)([smhd])\b(\]?)", shorter, text)


class Prometheus(Server):
    def __init__(
        self, targets: Mapping[str, Sequence[str]], alertmanager: str | None = None, port: int | None = None, factor: float = 1
    ) -> None:
        """targets: addresses of each job. alertmanager: host:port. port: without it a free one. factor: as for `hastened`."""
        super().__init__("prometheus")
        self._targets, self._alertmanager, self._factor = targets, alertmanager, factor
        self._address = f"127.0.0.1:{port or free_port()}"
        self.url = f"http://{self._address}"

    def launch(self) -> None:
        source = _DEPLOY / "prometheus"
        told: dict[str, Any] = yaml.safe_load(hastened((source / "prometheus.yml").read_text(), self._factor))
        if self._factor > 1:  # a scrape that takes longer than the interval fails, and its series end
            told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        jobs = {"prometheus": [self._address], **self._targets}
        told["scrape_configs"] = [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in jobs.items()
        ]
        receivers = [self._alertmanager] if self._alertmanager else []
        told["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": receivers}]}]}
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(told))
        for name in told["rule_files"]:
            (self.folder / name).write_text(hastened((source / name).read_text(), self._factor))
        binary = program("prometheus", "prometheus")
        own_files(binary, self.folder)
        self.start(
            [
                str(binary),
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address={self._address}",
                "--log.level=warn",
            ]
        )

    def wait(self) -> None:
        self.wait_until(lambda: answers(f"{self.url}/-/ready"))


class Alertmanager(Server):
    def __init__(self, slack_url: str, smtp: str, factor: float = 1) -> None:
        """slack_url: an incoming webhook. smtp: host:port of a mail server. factor: as for `hastened`."""
        super().__init__("alertmanager")
        self._slack_url, self._smtp, self._factor = slack_url, smtp, factor
        self.address = f"127.0.0.1:{free_port()}"

    def launch(self) -> None:
        source = _DEPLOY / "alertmanager"
        shutil.copytree(source / "templates", self.folder / "templates")
        (self.folder / "slack-url").write_text(self._slack_url)
        told = yaml.safe_load(hastened((source / "alertmanager.yml").read_text(), self._factor))
        told["global"]["smtp_smarthost"] = self._smtp
        for receiver in told["receivers"]:
            for slack in receiver["slack_configs"]:
                slack["api_url_file"] = f"{self.folder}/slack-url"
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(told))
        binary = program("prometheus-alertmanager", "prometheus-alertmanager")
        own_files(binary, self.folder)
        self.start(
            [
                str(binary),
                f"--config.file={self.folder}/alertmanager.yml",
                f"--storage.path={self.folder}/data",
                f"--web.listen-address={self.address}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ]
        )

    def wait(self) -> None:
        self.wait_until(lambda: answers(f"http://{self.address}/-/ready"))
