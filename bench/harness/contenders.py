"""The contenders: saker, a no-op baseline, and the alternatives. Each runs in separate processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import orjson
import psutil

from saker.bench.data.reference_models import records, reference_model
from saker.deploy.local.environment import python_of
from saker.deploy.local.server import free_port
from saker.engine.config import cache
from saker.engine.errors import SakerError

STOP_SECONDS = 30
_PEERS = Path(__file__).parents[1] / "peers"
LOG = Path("build") / "bench" / "contender.log"


class BenchFailed(SakerError):
    """A contender did not start, or died."""


class Topics(NamedTuple):
    """Where a contender reads and writes."""

    bootstrap_servers: str
    input: str
    output: str
    rejected: str
    group: str


@dataclass(frozen=True, slots=True)
class Contender:
    """`commands(topics, workers)` start it; `about` is its tuning. scores: its results are scores that can be checked."""

    name: str
    about: str
    commands: Callable[[Topics, int], list[list[str]]]
    scores: bool = True
    #: Its output topic has offsets that are the broker's own, at the end of each transaction.
    transactional: bool = False
    #: The end of its input topic's name: "-avro" for the same records in Avro.
    input: str = ""
    #: Where its code is taken from, for comparing two versions of saker.
    folder: Path | None = None


@dataclass(slots=True)
class Running:
    """A contender's processes, all that they started included."""

    roots: list[psutil.Popen]
    metrics_port: int | None
    _ended_cpu: dict[int, float] = field(default_factory=dict)

    def _processes(self) -> list[psutil.Process]:
        return [p for root in self.roots for p in (root, *root.children(recursive=True))]

    def cpu_seconds(self) -> float:
        """Of all of them together since they started."""
        for process in self._processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._ended_cpu[process.pid] = times.user + times.system
        return sum(self._ended_cpu.values())

    def peak_mb(self) -> float:
        """Sum of the peak resident memory (VmHWM) of all processes; pages that they share count for each."""
        return sum(_peak_mb(process.pid) for process in self._processes())

    def check(self) -> None:
        """Raises `BenchFailed` when one of them has ended."""
        for root in self.roots:
            if root.poll() is not None:
                raise BenchFailed(f"{' '.join(root.args)} ended with exit code {root.returncode}; see {LOG}")


def _peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


@contextmanager
def running(contender: Contender, topics: Topics, workers: int) -> Iterator[Running]:
    """Start the contender, and stop it with all its children at the end. Its stderr goes to `LOG`."""
    commands = contender.commands(topics, workers)
    port = next((int(c[c.index("--metrics-port") + 1]) for c in commands if "--metrics-port" in c), None)
    roots: list[psutil.Popen] = []
    LOG.parent.mkdir(parents=True, exist_ok=True)
    # SIGTERM, a time limit's for instance, ends a bench as Ctrl-C does: contenders that it left would run for ever.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        environment = _environment(contender)
        with LOG.open("wb") as log:
            roots.extend(  # one by one: those that did start are stopped when one does not
                psutil.Popen(command, stdout=log, stderr=log, cwd=contender.folder, env=environment, start_new_session=True)
                for command in commands
            )
        yield Running(roots, port)
    finally:
        for root in roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                root.terminate()
        psutil.wait_procs(roots, STOP_SECONDS)
        for root in roots:  # by session, not by parent: the children of a dead process have no parent to find them by
            with contextlib.suppress(ProcessLookupError):
                os.killpg(root.pid, signal.SIGKILL)
        signal.signal(signal.SIGTERM, before)


def _environment(contender: Contender) -> dict[str, str]:
    return {**os.environ, **({"PYTHONPATH": str(contender.folder)} if contender.folder else {}), "OMP_NUM_THREADS": "1"}


def model_file() -> Path:
    """Reference model S, as a file in the user's cache."""
    path = cache("bench") / "S.onnx"
    model = reference_model("S").onnx
    if not path.exists() or path.read_bytes() != model:
        path.write_bytes(model)
    return path


def saker(
    name: str = "saker",
    *options: str,
    folder: Path | None = None,
    python: Path = Path(sys.executable),
    module: str = "saker",
) -> Contender:
    """`saker serve` of this code, or of the code in `folder`, whose packages `python` has. module: in its place."""

    def commands(topics: Topics, workers: int) -> list[list[str]]:
        command = [str(python), "-m", module, "serve", "--model", str(model_file())]
        command += ["--bootstrap-servers", topics.bootstrap_servers, "--group", topics.group, "--input", topics.input]
        command += ["--output", topics.output, "--rejected", topics.rejected]
        return [[*command, "--metrics-port", str(free_port()), "--workers", str(workers), *options]]

    about = f"{module} serve {' '.join(options)}".strip()
    return Contender(name, about, commands, folder=folder, transactional="exactly_once" in options)


def _loop(name: str, library: str, about: str) -> Contender:
    def commands(topics: Topics, workers: int) -> list[list[str]]:
        arguments = (topics.bootstrap_servers, topics.input, topics.output, topics.group)
        return [[sys.executable, "-m", "saker.bench.peers.python_loop", library, *arguments]] * workers

    return Contender(name, about, commands, scores=library != "baseline")


BASELINE = _loop("baseline", "baseline", "consumes, and produces values as long as a result; no work")
OWN: dict[str, Contender] = {
    c.name: c
    for c in (
        saker(),
        BASELINE,
        _loop("python loop", "onnxruntime", "confluent-kafka, orjson, numpy and onnxruntime in batches"),
        _loop("python loop (LightGBM)", "lightgbm", "the same with LightGBM's own predict, one thread"),
        saker("saker (kernels off)", "--kernels", "off"),
    )
}


def avro_schema() -> Path:
    """Of the records of reference model S, which have an identifier and numbers."""
    path = cache("bench") / "S.avsc"
    first = orjson.loads(records(reference_model("S"), 1)[0])
    fields = [{"name": name, "type": "long" if name == "TransactionID" else ["null", "double"]} for name in first]
    path.write_bytes(orjson.dumps({"type": "record", "name": "Transaction", "fields": fields}))
    return path


def _of_avro(name: str, *options: str) -> Contender:
    def commands(topics: Topics, workers: int) -> list[list[str]]:
        return [[*command, "--schema", str(avro_schema())] for command in of.commands(topics, workers)]

    of = saker(name, "--format", "avro", *options)
    return replace(of, commands=commands, input="-avro")


#: What guarantees and settings cost: for `saker.bench.scenarios.backlog`.
VARIANTS: dict[str, Contender] = {
    c.name: c
    for c in (
        saker("saker (exactly once)", "--delivery", "exactly_once"),
        _of_avro("saker (Avro)"),
        saker("saker (linger 0 ms)", "--linger-ms", "0"),
        saker("saker (linger 1 ms)", "--linger-ms", "1"),
        saker("saker (no guarantee)", module="saker.bench.scenarios.no_guarantee"),
    )
}


def _peer(name: str, script: str, about: str, *, environment: str = "", processes: bool = True) -> Contender:
    """A script of bench/peers. environment: the separate environment that it runs in. processes: one per worker."""

    def commands(topics: Topics, workers: int) -> list[list[str]]:
        python = sys.executable
        if environment:
            python = str(python_of(_PEERS / "requirements" / f"{environment}.txt"))
        arguments = [topics.bootstrap_servers, topics.input, topics.output]
        arguments += [topics.group if processes else str(workers), str(model_file())]
        if script == "mlflow_serve":
            arguments += [str(reference_model("S").text), str(free_port())]
        return [[python, str(_PEERS / f"{script}.py"), *arguments]] * (workers if processes else 1)

    return Contender(name, about, commands)


PEERS: dict[str, Contender] = {
    c.name: c
    for c in (
        _peer("Bytewax", "bytewax_flow", "flat_map_batch, orjson, onnxruntime", environment="bytewax", processes=False),
        _peer("Quix Streams", "quix", "at least once, orjson, onnxruntime for each record", environment="quix"),
        _peer("MLServer", "mlserver_kafka", "its Kafka server, adaptive batching, onnxruntime", environment="mlserver"),
        _peer("mlflow models serve", "mlflow_serve", "a request a record over a connection kept open"),
    )
}
ALL = OWN | PEERS
