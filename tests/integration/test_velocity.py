"""`saker serve` with velocity features: every score is the one that the log says, whatever happens to the pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saker.engine.kafka.replay import replay
from tests.support import velocity
from tests.support.serving import Topics
from tests.support.velocity import VelocityModel, check_scores, payments


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VelocityModel:
    return velocity.trained(tmp_path_factory.mktemp("velocity"))


def send(bootstrap_servers: str, topics: Topics, first: int, n: int, rate: float | None = None) -> None:
    pairs = list(payments(n, seed=first, first=first))
    replay(pairs, bootstrap_servers=bootstrap_servers, topic=topics.raw, rate=rate)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("backlog", [True, False])
def test_each_score_is_that_of_the_log(
    backlog: bool, delivery: str, model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    options = ["--state", str(tmp_path), "--delivery", delivery]
    if backlog:
        send(bootstrap_servers, topics, 0, 6000)
        serve(str(model.path), workers=2, options=options)
    else:
        serve(str(model.path), workers=1, options=options)
        send(bootstrap_servers, topics, 0, 2000, rate=600)
    check_scores(bootstrap_servers, topics, model, 6000 if backlog else 2000)


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_pool_continues_where_it_was(
    kernels: str, model: VelocityModel, bootstrap_servers: str, topics: Topics, serve: Any, tmp_path: Path
) -> None:
    """With the snapshots of the stopped pool, without any, and with a damaged one."""
    options, snapshots = ["--state", str(tmp_path)], list[Path]()
    for first in (0, 1500, 3000, 4500):
        serving = serve(str(model.path), workers=2, options=options, kernels=kernels)
        send(bootstrap_servers, topics, first, 1500)
        check_scores(bootstrap_servers, topics, model, first + 1500, 1e-12 if kernels == "off" else 0.0)
        assert serving.stop() == 0
        snapshots = list(tmp_path.rglob("*.snapshot"))
        assert len(snapshots) == (4 if kernels == "auto" else 0)
        assert not list(tmp_path.rglob("*.part"))
        for one in snapshots:
            if first == 1500:
                one.unlink()
            elif first == 3000:
                one.write_bytes(one.read_bytes()[:-40])
