"""Quix Streams: quix.py BOOTSTRAP_SERVERS INPUT OUTPUT GROUP MODEL.

At least once, a commit a second, the clients tuned for latency as saker's are; orjson for JSON. It has no batches of records,
so the model is called for each.
"""

import sys
from typing import Any

import orjson
from quixstreams import Application
from record import open_model, result


def main(bootstrap_servers: str, source: str, output: str, group: str, model: str) -> None:
    predict = open_model(model)
    app = Application(
        broker_address=bootstrap_servers,
        consumer_group=group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        use_changelog_topics=False,
        commit_interval=1.0,
        loglevel="ERROR",
        consumer_extra_config={"fetch.wait.max.ms": 10},
        producer_extra_config={"linger.ms": 0, "compression.type": "lz4"},
    )
    raw = app.topic(source, value_deserializer="bytes", key_deserializer="bytes")
    scored = app.topic(output, value_serializer="bytes", key_serializer="bytes")

    def score(value: bytes) -> Any:
        record = orjson.loads(value)
        return result(record, predict([record])[0])

    app.dataframe(raw).apply(score).to_topic(scored)
    app.run()


main(*sys.argv[1:])
