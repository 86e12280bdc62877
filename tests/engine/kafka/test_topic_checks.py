"""What is said of topics that do not fit each other."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from saker.engine.config import TopicLimits
from saker.engine.errors import ServingError
from saker.engine.kafka import admin, topic_checks
from saker.engine.kafka.admin import Topic

WEEK = 7 * 86_400_000
GOOD = Topic("raw", 4, 3, 1_048_588, 2, WEEK, "CreateTime")


@pytest.mark.parametrize(
    ("change", "severity", "text"),
    [
        ({"partitions": 3}, "error", "scored has 3 partitions, raw has 4: .*give both the same number"),
        ({"partitions": 5}, "warning", "scored has 5 partitions, raw has 4: .*some stay empty"),
        ({"max_message_bytes": 20_000}, "error", r"scored accepts at most 20,000 bytes .*batches of up to 1,000,000"),
        ({"replicas": 1}, "error", "scored has 1 replicas, and min.insync.replicas is 2: Kafka acknowledges nothing"),
        ({"replicas": 1, "min_insync_replicas": 1}, "note", "scored has one replica"),
        ({"retention_ms": 60_000}, "warning", "scored keeps records for 60,000 ms .*, raw for 604,800,000 ms: .*LogAppendTime"),
        ({"min_insync_replicas": 1}, "warning", "scored has 3 replicas, and min.insync.replicas is 1: .*set it to 2"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], severity: str, text: str) -> None:
    (finding,) = topic_checks.findings(GOOD, GOOD._replace(name="scored", **change), wide("rejected"))
    assert finding.severity == severity
    assert re.search(text, finding.text)


def test_rejections_that_will_be_cut_are_a_note() -> None:
    (finding,) = topic_checks.findings(GOOD, GOOD._replace(name="scored"), GOOD._replace(name="rejected"))
    assert finding.severity == "note"
    assert "the largest are truncated" in finding.text


def test_of_good_ones_nothing_is_said_nor_of_limits_that_are_not_told() -> None:
    assert topic_checks.findings(GOOD, GOOD._replace(name="scored"), wide("rejected")) == []
    silent = GOOD._replace(max_message_bytes=None, min_insync_replicas=None, retention_ms=None, timestamp_type=None)
    assert topic_checks.findings(silent, silent, silent) == []


@pytest.mark.parametrize("change", [{"retention_ms": -1}, {"timestamp_type": "LogAppendTime"}, {}])
def test_a_result_is_kept_for_ever_or_from_its_arrival_on(change: dict[str, Any]) -> None:
    source, output = GOOD._replace(retention_ms=-1), GOOD._replace(name="scored", **change)
    found = topic_checks.findings(source, output, wide("rejected")._replace(retention_ms=-1))
    assert [finding.severity for finding in found] == ([] if change else ["warning"])


def wide(name: str) -> Topic:
    return GOOD._replace(name=name, max_message_bytes=2 << 20)


def test_a_real_broker_tells_all_of_it(bootstrap_servers: str) -> None:
    name = f"facts-{uuid.uuid4().hex[:8]}"
    config = {"max.message.bytes": "1500000", "min.insync.replicas": "2", "retention.ms": "-1"}
    admin.create_topics(bootstrap_servers, [name], 3, config | {"message.timestamp.type": "LogAppendTime"})
    (found,) = admin.topics(bootstrap_servers, [name])
    assert found == Topic(name, 3, 1, 1_500_000, 2, -1, "LogAppendTime", 2**63 - 1, 3_600_000, "delete", -1)
    assert found.limits == TopicLimits(max_bytes=1_500_000)
    other = found._replace(timestamp_type="CreateTime", cleanup_policy="compact,delete")
    assert other.limits == TopicLimits(1_500_000, needs_key=True, after_ms=3_600_000)
    with pytest.raises(ServingError, match=r"topics not found at .*: nowhere"):
        admin.topics(bootstrap_servers, [name, "nowhere"])
