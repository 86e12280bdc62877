"""Histories for a model whose velocity features differ from those that are served: made in a separate process, which leaves
snapshots, before any worker is asked to change.

    ModelWatcher --new definition--> WarmUp --> process: log -> histories -> snapshots
                                                            v
    Rollout: each worker loads the snapshots, and replays what has come since
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

from saker.engine.config import ServeSettings
from saker.engine.contract import Contract, read_contract
from saker.engine.errors import HistoryMissing, ModelRefused, SakerError
from saker.engine.log import log_to_stderr
from saker.engine.model.registry import ResolvedModel
from saker.engine.records.envelope import envelope_of
from saker.engine.schema_registry import open_format
from saker.engine.serving.catch_up import catch_up, committed, reading
from saker.engine.serving.histories import WorkerHistories
from saker.engine.serving.key_check import check_keys
from saker.engine.serving.model_loading import load

_log = logging.getLogger("saker")
_SPAWN = multiprocessing.get_context("spawn")
_NICE = 10


class WarmUp:
    """One thread of the pool's process calls it."""

    def __init__(self, settings: Callable[[], ServeSettings], partitions: Callable[[], frozenset[int]]) -> None:
        """settings, partitions: of the pool, as they are then."""
        self._settings, self._partitions = settings, partitions

    def __call__(self, served: ResolvedModel, found: ResolvedModel) -> None:
        """Make the histories of `found` where it needs others than `served`.

        Raises `ModelRefused` if records for them are missing, another `SakerError` if it may be possible later.
        """
        settings = self._settings()
        contract = read_contract(found.path)
        if not contract.velocity or _definition(contract, settings) == _definition(read_contract(served.path), settings):
            return
        if not settings.state.cold_start:
            try:
                check_keys(settings.bootstrap_servers, settings.input, contract, open_format(settings.records))
            except HistoryMissing as error:
                raise ModelRefused(f"model {found.name}: {error}") from error
        pipe, theirs = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(
            target=main, args=(settings, found, sorted(self._partitions()), theirs), name="saker-warm-up", daemon=True
        )
        _log.info("%s has other velocity features: reading their history, %s keeps scoring", found.name, served.name)
        process.start()
        theirs.close()
        process.join()
        with contextlib.suppress(EOFError):  # it has sent nothing
            missing, reason = pipe.recv()
            raise (ModelRefused if missing else SakerError)(f"model {found.name}: {reason}")
        if process.exitcode:
            raise SakerError(f"model {found.name}: the process that reads its history ended with {process.exitcode}")


def _definition(contract: Contract, settings: ServeSettings) -> bytes:
    envelope = envelope_of(settings.records.envelope)
    return (contract if envelope is None else envelope.within(contract)).definition


def main(settings: ServeSettings, resolved: ResolvedModel, partitions: list[int], pool: Connection) -> None:
    """Entry point of the process."""
    log_to_stderr()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    try:
        _save_histories(settings, resolved, partitions)
    except SakerError as error:
        pool.send((isinstance(error, HistoryMissing), str(error)))


def _save_histories(settings: ServeSettings, resolved: ResolvedModel, partitions: list[int]) -> None:
    records = open_format(settings.records)
    histories = WorkerHistories(settings, records.envelope)
    model = load(resolved, settings, records, histories)
    histories.use(model.decoder.history)
    parent = os.getppid()
    with reading(settings) as (consumer, transport):
        # One partition after another takes the memory of one. The second time they begin at their snapshots, and are short.
        for partition in (*partitions, *partitions):
            until = {partition: committed(consumer, settings.input, partition)}
            catch_up(settings, consumer, transport, model.decoder, histories, until, lambda: os.getppid() == parent)
            histories.save([partition], math.inf)
            histories.drop([partition])
