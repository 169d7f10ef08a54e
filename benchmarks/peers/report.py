"""The comparison's records as tables, as JSON and as a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.drawing import bars
from benchmarks.peers.records import Record
from benchmarks.peers.servers import OWN, SERVERS
from benchmarks.report import write, write_table

FIGURES = ("rate", "p50", "p95", "p99", "cpu_ms", "memory", "processes", "start_seconds")


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over the rounds."""

    server: str
    noop: bool
    workers: int
    concurrency: int
    rounds: int
    rate: float
    p50: float
    p95: float
    p99: float
    cpu_ms: float
    memory: float
    processes: float
    start_seconds: float
    failures: int


def rows_of(records: Iterable[Record]) -> list[Row]:
    """In the order of the servers."""
    groups: dict[tuple[bool, int, int, int], list[Record]] = {}
    order = {server.name: place for place, server in enumerate(SERVERS)}
    for record in records:
        key = (record.noop, record.concurrency, order.get(record.server, len(order)), record.workers)
        groups.setdefault(key, []).append(record)
    return [_median(groups[key]) for key in sorted(groups)]


def _median(records: Sequence[Record]) -> Row:
    one = records[0]
    figures = {name: statistics.median(getattr(record, name) for record in records) for name in FIGURES}
    failures = sum(record.failures for record in records)
    return Row(one.server, one.noop, one.workers, one.concurrency, len(records), failures=failures, **figures)


def ratio(rows: Sequence[Row], row: Row) -> str:
    """This service's images a second, at its best number of workers, over the row's."""
    own = [
        other.rate for other in rows
        if (other.server, other.noop, other.concurrency) == (OWN, row.noop, row.concurrency)
    ]  # fmt: skip
    return f"{max(own) / row.rate:.2f}" if own and row.rate else ""


def write_report(records: Sequence[Record], skipped: dict[str, str], folder: Path) -> None:
    rows = rows_of(records)
    for noop in (False, True):
        for concurrency in sorted({row.concurrency for row in rows if row.noop == noop}):
            _write_part(rows, noop, concurrency)
    for name, reason in skipped.items():
        write(f"Skipped: {name}: {reason}.\n")
    for server in SERVERS:
        if server.leaves_out and any(row.server == server.name for row in rows):
            write(f"- {server.name} does without: {server.leaves_out}.")
    for row in rows:
        if row.failures:
            what = "no model" if row.noop else "tower"
            write(f"- {row.server}, {what}, concurrency {row.concurrency}: {row.failures} requests failed.")
    (folder / "peers.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    _draw(rows, folder)


def _write_part(rows: Sequence[Row], noop: bool, concurrency: int) -> None:
    what = "no model" if noop else "image tower"
    columns = (f"{what}, concurrency {concurrency}", "workers", "requests/s", "p50, ms", "p95", "p99",
               "processor ms each", "memory, MiB", "processes", "this service's rate over it")  # fmt: skip
    write_table(
        columns,
        [
            (row.server, row.workers, f"{row.rate:.1f}", f"{row.p50:.2f}", f"{row.p95:.2f}", f"{row.p99:.2f}",
             f"{row.cpu_ms:.2f}", f"{row.memory:.0f}", f"{row.processes:.0f}", ratio(rows, row))
            for row in rows if (row.noop, row.concurrency) == (noop, concurrency)
        ],
    )  # fmt: skip


def _draw(rows: Sequence[Row], folder: Path) -> None:
    for noop, name in ((False, "tower"), (True, "noop")):
        chosen = [row for row in rows if row.noop == noop]
        if not chosen:
            continue
        groups: dict[str, dict[str, float]] = {}
        for row in chosen:
            groups.setdefault(f"{row.server} ({row.workers})", {})[f"concurrency {row.concurrency}"] = row.rate
        bars(groups, folder / f"peers_{name}.png", ylabel="requests/s")
