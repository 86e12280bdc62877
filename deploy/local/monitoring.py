"""Prometheus and Alertmanager with the configuration of deploy/, on addresses of this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from saker import deploy
from saker.deploy.local.debian import own_files, program
from saker.deploy.local.server import Server, answers, free_port

_DEPLOY = Path(deploy.__file__ or "").parent
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hastened(text: str, factor: float) -> str:
    """A configuration or rules with all their durations `factor` times as short: for tests that cannot wait for an hour.

    None gets shorter than a second: a scrape that takes longer than its interval fails, and its series end.
    """

    def shorter(match: re.Match[str]) -> str:
        milliseconds = int(match[2]) * _SECONDS[match[3]] * 1000
        return f"{match[1]}{max(round(milliseconds / factor), min(milliseconds, 1000))}ms{match[4]}"

    return re.sub(r"(\[|: |offset )(\d+)([smhd])\b(\]?)", shorter, text)


class _Debian(Server):
    """A server of Debian's package of the same name."""

    def __init__(self, package: str) -> None:
        super().__init__(package)
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"

    def start_with(self, *options: str) -> None:
        binary = program(self.name, self.name)
        own_files(binary, self.folder)
        self.start([str(binary), *options, f"--web.listen-address={self.address}", "--log.level=warn"])

    def wait(self) -> None:
        self.wait_until(lambda: answers(f"{self.url}/-/ready"))


class Prometheus(_Debian):
    def __init__(self, targets: Mapping[str, Sequence[str]], alertmanager: str | None = None, factor: float = 1) -> None:
        """targets: addresses of each job. alertmanager: host:port. factor: as for `hastened`."""
        super().__init__("prometheus")
        self._targets, self._alertmanager, self._factor = targets, alertmanager, factor

    def launch(self) -> None:
        source = _DEPLOY / "prometheus"
        told: dict[str, Any] = yaml.safe_load(hastened((source / "prometheus.yml").read_text(), self._factor))
        jobs = {"prometheus": [self.address], **self._targets}
        told["scrape_configs"] = [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in jobs.items()
        ]
        receivers = [self._alertmanager] if self._alertmanager else []
        told["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": receivers}]}]}
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(told))
        for name in told["rule_files"]:
            (self.folder / name).write_text(hastened((source / name).read_text(), self._factor))
        self.start_with(f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data")


class Alertmanager(_Debian):
    def __init__(self, slack_url: str, smtp: str, factor: float = 1) -> None:
        """slack_url: an incoming webhook. smtp: host:port of a mail server. factor: as for `hastened`."""
        super().__init__("prometheus-alertmanager")
        self._slack_url, self._smtp, self._factor = slack_url, smtp, factor

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
        self.start_with(
            f"--config.file={self.folder}/alertmanager.yml",
            f"--storage.path={self.folder}/data",
            "--cluster.listen-address=",
        )
