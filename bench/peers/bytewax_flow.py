"""Bytewax: bytewax_flow.py BOOTSTRAP_SERVERS INPUT OUTPUT WORKERS MODEL.

`flat_map_batch`, so that the model is called once for what came together; orjson for JSON. It has no consumer groups: its
workers are threads of one process. Its snapshots are off: nothing is kept over a crash.
"""

import sys
from collections.abc import Iterable

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from record import open_model, result


def main(bootstrap_servers: str, source: str, output: str, workers: str, model: str) -> None:
    predict = open_model(model)

    def score(messages: list[KafkaSourceMessage]) -> Iterable[KafkaSinkMessage]:
        records = [orjson.loads(message.value) for message in messages]
        for message, record, found in zip(messages, records, predict(records), strict=True):
            yield KafkaSinkMessage(message.key, result(record, found))

    flow = Dataflow("fraud")
    consumer = {"fetch.wait.max.ms": "10"}
    raw = op.input("raw", flow, KafkaSource([bootstrap_servers], [source], add_config=consumer, batch_size=1000))
    scored = op.flat_map_batch("score", raw, score)
    producer = {"linger.ms": "0", "compression.type": "lz4"}
    kop.output("scored", scored, brokers=[bootstrap_servers], topic=output, add_config=producer)
    cli_main(flow, workers_per_process=int(workers))


main(*sys.argv[1:])
