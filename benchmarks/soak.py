"""Whether the service lasts: mixed traffic for long, then twice what can be served, then a key that floods beside one
that does not. Bounded in time, on loopback only."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import growth, overload
from benchmarks.growth import Growth, at_rest, looked_at
from benchmarks.names import class_names
from benchmarks.noisy import noisy
from benchmarks.open_load import quantile
from benchmarks.overload import DEADLINE, label_set_path
from benchmarks.process import ServiceProcess, running_service
from benchmarks.report import progress, write, write_header, write_table
from benchmarks.visitors import Seen, visited

VISITORS = 6
KNOWN = 8
"""Label sets that visitors ask by."""

WARM = 0.1
"""Part of the time before the growth is looked at: caches and allocators fill."""

MIXED_COLUMNS = ("calls", "wrong", "refused or late", "images p50 / p99", *growth.COLUMNS, "label sets churned")


@dataclass(frozen=True, slots=True)
class Mixed:
    seen: Seen
    growth: Growth

    def row(self) -> tuple[str, ...]:
        """Under `MIXED_COLUMNS`."""
        seen = self.seen
        late = sum(number for told, number in seen.statuses.items() if told.endswith((" 429", " 503", " 504")))
        wrong = ", ".join(f"{told}: {number}" for told, number in seen.wrong.items())
        return (
            f"{seen.statuses.total()}",
            wrong or "0",
            f"{late}",
            f"{1000 * quantile(seen.seconds, 0.5):.0f} / {1000 * quantile(seen.seconds, 0.99):.0f} ms",
            *self.growth.row(),
            f"{seen.churned}",
        )


def mixed(service: ServiceProcess, *, seconds: float) -> Mixed:
    """Seconds beside those in which it warms up."""
    known = [label_set_path(service, class_names(10, salt=number)).rpartition("=")[2] for number in range(KNOWN)]
    with visited(service, known, VISITORS):
        time.sleep(WARM * seconds)
    before = at_rest(service)
    with visited(service, known, VISITORS) as seen, looked_at(service, every=max(0.5, seconds / 200)) as sizes:
        time.sleep(seconds)
    return Mixed(seen, Growth(before, at_rest(service), tuple(sizes)))


CACHES = ("hot_bytes", "memory_bytes", "text_bytes", "embedding_bytes")


def mixed_part(seconds: float, caches: int) -> int:
    """1 when something was answered as it should not have been. `caches`: MiB of each, and few
    label sets may wait for adaptation; 0 for the defaults."""
    progress(f"{seconds:g} s of mixed traffic")
    sizes = {name: str(caches << 20) for name in CACHES} | {"max_adaptations": "8"} if caches else {}
    with running_service(log_level="error", **sizes) as service:
        found = mixed(service, seconds=seconds)
    write_table(MIXED_COLUMNS, [found.row()])
    write(f"{VISITORS} connections, each going on once it was answered: {dict(found.seen.statuses)}\n")
    return int(bool(found.seen.wrong))


def overload_part(seconds: float, factor: float, in_flight: int) -> int:
    """1 when something was answered as overload does not excuse, or not answered."""
    progress(f"{seconds:g} s at {factor:g} times the capacity")
    with running_service(**overload.SETTINGS, max_in_flight=str(in_flight)) as service:
        found = overload.overload(service, seconds=seconds, factor=factor)
    write_table(overload.COLUMNS, [found.row()])
    write(f"Load, service and label-set churn share this machine; answers were wanted within {DEADLINE:g} s.\n")
    return int(bool(found.seen.unexpected))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="of mixed traffic; 0 leaves it out")
    parser.add_argument(
        "--caches",
        type=int,
        default=0,
        help="MiB of each, and a short queue of label sets, so that all is soon full and only leaks grow; 0: defaults",
    )
    parser.add_argument("--overload", type=float, default=600.0, help="seconds; 0 leaves it out")
    parser.add_argument("--noisy", type=float, default=10.0, help="seconds of each neighbour; 0 leaves it out")
    parser.add_argument("--in-flight", type=int, default=512, help="the service's max_in_flight under overload")
    parser.add_argument("--factor", type=float, default=2.0, help="of the capacity that is measured first")
    arguments = parser.parse_args(argv)
    write_header("Soak", "soak", argv)
    failed = mixed_part(arguments.seconds, arguments.caches) if arguments.seconds else 0
    if arguments.overload:
        failed |= overload_part(arguments.overload, arguments.factor, arguments.in_flight)
    return failed | (noisy(seconds=arguments.noisy, rounds=3) if arguments.noisy else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
