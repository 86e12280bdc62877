"""Histories of the log up to given offsets: the records before them are read and decoded, without results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from saker.engine.config import ServeSettings, StateSettings
from saker.engine.contract import Contract
from saker.engine.errors import ServingError
from saker.engine.history.partition_history import PartitionHistory
from saker.engine.kafka import clients
from saker.engine.kafka.batch import ConsumedBatch
from saker.engine.kafka.clients import REQUEST_SECONDS, Consumer, KafkaException, TopicPartition
from saker.engine.kafka.native_transport import TransportChoice
from saker.engine.kafka.transport import Transport
from saker.engine.records.decode import Decoder
from saker.engine.records.formats import Format
from saker.engine.serving.histories import WorkerHistories

_POLL_SECONDS = 1.0
_GROUP = "saker-log"


def history_before(
    bootstrap_servers: str, topic: str, contract: Contract, starts: Mapping[int, int], records: Format
) -> PartitionHistory | None:
    """The history that a record of `topic` has at these offsets of its partitions; None without velocity features.

    It reads the log from the longest window before them. Where records are deleted, the history is incomplete. Raises
    `ServingError` where the broker does not answer.
    """
    if not contract.velocity:
        return None
    with tempfile.TemporaryDirectory() as folder:
        state = StateSettings(Path(folder), megabytes=65_536, snapshot_seconds=float("inf"), cold_start=True)
        settings = ServeSettings(bootstrap_servers, input=topic, group=_GROUP, state=state)
        histories = WorkerHistories(settings, records.envelope)
        history = histories.of(contract)
        histories.use(history)
        decoder = Decoder(contract, of=records, history=history)
        with reading(settings) as (consumer, transport):
            catch_up(settings, consumer, transport, decoder, histories, starts)
    return history


@contextmanager
def reading(settings: ServeSettings) -> Iterator[tuple[Consumer, Transport]]:
    """A consumer that is no member of its group, and its transport."""
    choice = TransportChoice(settings.transport, settings.kernels)
    consumer = clients.consumer(settings.bootstrap_servers, **{"group.id": settings.group, **choice.client_settings})
    transport = choice.open(consumer, [], settings.output)
    try:
        yield consumer, transport
    finally:
        transport.close()


def catch_up(
    settings: ServeSettings,
    consumer: Consumer,
    transport: Transport,
    decoder: Decoder,
    histories: WorkerHistories,
    until: Mapping[int, int],
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Recover the histories of partitions and replay the log up to the offsets `until`. wanted: asked now and then."""
    places = [TopicPartition(settings.input, number, offset) for number, offset in until.items()]
    transport.attach((settings.input, number) for number in until)
    try:
        consumer.assign(histories.recover(consumer, places))
    except KafkaException as error:
        raise ServingError(f"cannot read {settings.input} at {settings.bootstrap_servers}: {error.args[0].str()}") from error
    while histories.n_replaying and wanted():
        _replay(decoder, histories, transport.poll(settings.max_batch, _POLL_SECONDS)[0])


def _replay(decoder: Decoder, histories: WorkerHistories, batch: ConsumedBatch) -> None:
    """The batch is gone when this returns: a client does not end while its records are held."""
    old, _ = histories.split(batch)
    decoder.decode(old)
    histories.replayed(batch, len(old))


def committed(consumer: Consumer, topic: str, partition: int) -> int:
    """The committed offset of the consumer's group, below 0 if there is none. Raises `ServingError`."""
    try:
        (at,) = consumer.committed([TopicPartition(topic, partition)], REQUEST_SECONDS)
    except KafkaException as error:
        raise ServingError(f"cannot read the committed offset of {topic}: {error.args[0].str()}") from error
    return int(at.offset)
