"""Random schemas and records of Avro and Protobuf, whole and damaged: every native variant against the reference.

`python -m tests.engine.records.fuzz_binary [--seconds 20] [--seed S]`

Meant for a sanitized build, whose buffers have exactly the size of their record (`make sanitize`, `make fuzz`). A seed on which
they differ is printed; `Case(seed)` and `ProtoCase(seed)` make its schema and records again.
"""

from __future__ import annotations

import argparse
import sys
import time

from saker.engine.records.decode import Decoder
from tests.engine.records.avro_cases import Case
from tests.engine.records.decoders import NATIVE
from tests.engine.records.protobuf_cases import ProtoCase

RECORDS = 32


def differ(case: Case | ProtoCase) -> list[str]:
    """The variants that do not agree with the reference on records of the case."""
    values = [case.damaged() if case.random.random() < 0.6 else case.record() for _ in range(RECORDS)]
    expected = Decoder(case.contract, "off", case.format).decode(values)
    wrong = []
    for variant in NATIVE:
        found = Decoder(case.contract, "auto", case.format, variant=variant).decode(values)
        same = found.matrix.tobytes() == expected.matrix.tobytes() and list(found.ids) == list(expected.ids)
        is_slow = found.handed_over > len(expected.rejections)  # an accepted record would take fifty times as long
        if not same or is_slow or found.rejections != expected.rejections:
            wrong.append(variant)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    asked = parser.parse_args()
    until, done, seed = time.monotonic() + asked.seconds, 0, asked.seed
    while time.monotonic() < until:
        for kind in (Case, ProtoCase):
            if wrong := differ(kind(seed)):
                sys.exit(f"{kind.__name__}({seed}): {', '.join(wrong)} differ from the reference")
            done += RECORDS
        seed += 1
    sys.stdout.write(f"seeds {asked.seed} to {seed - 1}: {done:,} records, no difference\n")


if __name__ == "__main__":
    main()
