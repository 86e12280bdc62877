"""`saker rejected`: list, show and replay rejected records. Only `show` prints the contents of a record."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from saker.commands.options import OPERATING, Bootstrap, Json, RejectedTopic, app, printable, tell
from saker.engine.errors import SakerError

if TYPE_CHECKING:
    from saker.engine.kafka.reader import Record

rejected = typer.Typer(help="List, show and replay rejected records.", no_args_is_help=True)
app.add_typer(rejected, name="rejected", rich_help_panel=OPERATING)

Last = Annotated[int, typer.Option("--last", min=1, help="Number of newest rejections to read.")]
Code = Annotated[str | None, typer.Option("--code", help="Select rejections by code, such as missing_field.")]
Field = Annotated[str | None, typer.Option("--field", help="Select rejections by the field that caused them.")]

REPLAYED = "saker.replayed"
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Rejected:
    """The headers of a rejection."""

    at: str  # PARTITION:OFFSET in its topic
    sent: str
    code: str
    field: str
    message: str
    origin: str  # TOPIC:PARTITION:OFFSET
    cut: bool


@rejected.command("list", epilog="Example: `saker rejected list --bootstrap-servers localhost:9092 --code missing_field`")
def list_(
    bootstrap_servers: Bootstrap,
    topic: RejectedTopic = "rejected-transactions",
    last: Last = 1000,
    code: Code = None,
    field: Field = None,
    as_json: Json = False,
) -> None:
    """List the newest rejections and their reasons, without values of the records."""
    chosen, foreign = _chosen(bootstrap_servers, topic, last, code, field)
    found = [told for _, told in chosen]
    counts = Counter((one.code, one.field) for one in found)
    lines = [f"{number:>8,}  {reason} {named}".rstrip() for (reason, named), number in counts.most_common()]
    lines += ["", *(f"{one.at:>12}  {one.sent}  {one.message}{' (truncated)' if one.cut else ''}" for one in found[-_SHOWN:])]
    head = f"{len(found):,} rejections{_left_out(foreign)}"
    tell("\n".join(map(printable, [head, *lines])), [asdict(one) for one in found], as_json)


@rejected.command(epilog="Example: `saker rejected show 2:1041 --bootstrap-servers localhost:9092`")
def show(
    at: Annotated[str, typer.Argument(help="PARTITION:OFFSET, from `saker rejected list`.")],
    bootstrap_servers: Bootstrap,
    topic: RejectedTopic = "rejected-transactions",
) -> None:
    """Print the headers of one rejection, and the record byte for byte.

    In a terminal, control characters are printed as escapes.
    """
    from saker.engine.kafka.reader import read_one

    partition, _, offset = at.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise typer.BadParameter(f"expected PARTITION:OFFSET, such as 2:1041, got {at!r}")
    record = read_one(bootstrap_servers, topic, int(partition), int(offset))
    for name, value in [("key", record.key), *record.headers]:
        typer.echo(printable(f"{name}: {'' if value is None else value.decode(errors='backslashreplace')}"))
    typer.echo()
    value = record.value or b""
    if sys.stdout.isatty():
        typer.echo("\n".join(map(printable, value.decode(errors="backslashreplace").split("\n"))))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(value + b"\n")


@rejected.command(epilog="Example: `saker rejected replay --code missing_field --bootstrap-servers localhost:9092`")
def replay(
    bootstrap_servers: Bootstrap,
    topic: RejectedTopic = "rejected-transactions",
    last: Last = 1000,
    code: Code = None,
    field: Field = None,
    to: Annotated[str | None, typer.Option("--to", help="Topic to send to (default: the topic they came from).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the number of records and send nothing.")] = False,
) -> None:
    """Send rejected records again, byte for byte, to the partitions they came from.

    A record keeps its key and headers and gets a header `saker.replayed`. Its timestamp becomes the time of sending, since
    retention could delete an older one at once. Replaying twice scores the records twice.
    """
    from saker.engine.kafka import clients
    from saker.engine.kafka.rejected_record import PREFIX

    records, foreign = _chosen(bootstrap_servers, topic, last, code, field)
    whole = [record for record, told in records if not told.cut]
    left = f"; {len(records) - len(whole)} are truncated and cannot be replayed" if len(whole) < len(records) else ""
    left += _left_out(foreign)
    if dry_run:
        typer.echo(f"would send {len(whole)} of {len(records)} rejections{left}")
        return
    producer = clients.producer(bootstrap_servers)
    errors: list[str] = []
    for record in whole:
        headers = [(name, value) for name, value in record.headers if not name.startswith(PREFIX)]
        headers.append((REPLAYED, f"{record.partition}:{record.offset}".encode()))
        producer.produce(
            to or record.header(f"{PREFIX}topic"),
            record.value,
            record.key,
            record.partition,
            headers=headers,
            on_delivery=lambda error, _: errors.append(error.str()) if error else None,
        )
        producer.poll(0)
    waiting = producer.flush(60)
    if errors or waiting:
        raise SakerError(f"{len(errors) + waiting} of {len(whole)} records were not acknowledged: {errors[:1]}")
    typer.echo(f"sent {len(whole)} of {len(records)} rejections again{left}")


def _left_out(foreign: int) -> str:
    return f"; ignored {foreign:,} records that saker did not write" if foreign else ""


def _chosen(
    bootstrap_servers: str, topic: str, last: int, code: str | None, field: str | None
) -> tuple[list[tuple[Record, Rejected]], int]:
    """The selected rejections, oldest first, and the number of records that saker did not write."""
    from saker.engine.kafka.reader import read_last

    records = sorted(read_last(bootstrap_servers, topic, last), key=lambda record: record.timestamp_ms)
    rejections = [(record, told) for record in records if (told := _told(record)) is not None]
    chosen = [(record, told) for record, told in rejections if code in (None, told.code) and field in (None, told.field)]
    return chosen, len(records) - len(rejections)


def _told(record: Record) -> Rejected | None:
    """None for a record that saker did not write: others may write to the topic."""
    from saker.engine.kafka.rejected_record import PREFIX

    try:
        told = {name: (value or b"").decode() for name, value in record.headers if name.startswith(PREFIX)}
        code, field, message, *origin = (
            told[f"{PREFIX}{name}"] for name in ("code", "field", "message", "topic", "partition", "offset")
        )
    except (KeyError, UnicodeDecodeError):
        return None
    sent = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
    return Rejected(
        f"{record.partition}:{record.offset}", sent, code, field, message, ":".join(origin), f"{PREFIX}size" in told
    )
