"""What an API key that floods costs another: the latencies of a quiet key alone, beside a busy neighbour that does not
overload the service, and beside one that sends more than can be served. Rounds take turns, so that drift hits all."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.open_load import OpenLoad, Plan, quantile
from benchmarks.overload import IMAGES, SETTINGS, capacity, label_set_path
from benchmarks.process import ServiceProcess, running_service
from benchmarks.report import progress, write_header, write_table
from service.security.key_file import write_keys
from service.security.keys import new_key

QUIET = 0.05
"""What the quiet key sends, as a part of the capacity."""

NEIGHBOURS = {"alone": 0.0, "busy": 0.75, "flooding": 3.0}
"""What the other key sends, as a part of the capacity."""


@dataclass
class Quiet:
    """What became of the quiet key's requests: latencies of those answered, in seconds, and how many others."""

    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0

    def row(self, neighbour: str, busy: Quiet) -> tuple[str, ...]:
        p95 = quantile(self.latencies, 0.95)
        return (
            neighbour,
            f"{len(self.latencies)}",
            f"{self.refused}",
            f"{self.failed}",
            f"{1000 * quantile(self.latencies, 0.5):.0f} ms",
            f"{1000 * p95:.0f} ms",
            f"{100 * (p95 / quantile(busy.latencies, 0.95) - 1):+.0f} %",
        )


COLUMNS = ("neighbour", "answered", "refused", "failed", "p50", "p95", "p95 to that beside the busy one")


def new_token(path: Path, count: int) -> list[str]:
    """So many keys in a new key file."""
    made = [new_key(frozenset({"classify", "label-sets", "metrics"})) for _ in range(count)]
    write_keys(path, [key for key, _ in made])
    return [token for _, token in made]


def beside(service: ServiceProcess, path: str, keys: Sequence[str], rates: Sequence[float], seconds: float) -> Quiet:
    """The quiet key's (first) requests while the other sends its own."""
    plans = [
        Plan(service.port, path, IMAGES, rate, seconds, key=key) for key, rate in zip(keys, rates, strict=True) if rate
    ]
    with OpenLoad() as quiet, OpenLoad() as other, ThreadPoolExecutor(2) as pool:
        found = [pool.submit(load.run, plan) for load, plan in zip((quiet, other), plans, strict=False)]
        seen = found[0].result()
        found[-1].result()
    answered = len(seen.accepted) + len(seen.refused)
    return Quiet(seen.accepted, len(seen.refused), sum(seen.statuses.values()) - answered + seen.not_sent)


def measured(service: ServiceProcess, keys: Sequence[str], *, seconds: float, rounds: int) -> dict[str, Quiet]:
    path = label_set_path(service, headers={"Authorization": f"Bearer {keys[0]}"})
    peak = capacity(service, path, seconds, key=keys[0])
    found = {name: Quiet() for name in NEIGHBOURS}
    for number in range(rounds):
        for name, part in NEIGHBOURS.items():
            progress(f"round {number + 1}: a neighbour {name}")
            one = beside(service, path, keys, (QUIET * peak, part * peak), seconds)
            found[name].latencies += one.latencies
            found[name].refused += one.refused
            found[name].failed += one.failed
    return found


def noisy(*, seconds: float, rounds: int) -> int:
    """Writes a table; 1 when a request of the quiet key was neither answered nor refused."""
    with tempfile.TemporaryDirectory(prefix="selftpt-") as folder:
        file = Path(folder) / "keys.json"
        keys = new_token(file, 2)
        with running_service(**SETTINGS, api_keys_file=str(file)) as service:
            found = measured(service, keys, seconds=seconds, rounds=rounds)
    write_table(COLUMNS, [one.row(name, found["busy"]) for name, one in found.items()])
    return int(any(one.failed for one in found.values()))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each neighbour in each round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    write_header("A noisy key", "noisy", argv)
    return noisy(seconds=arguments.seconds, rounds=arguments.rounds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
