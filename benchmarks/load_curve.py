"""Latency against load: as many at once as there are connections (closed loop), and so many a second as strangers send
(open loop) at shares of the measured capacity, up to twice of it."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.classify import IMAGES, adapted_path
from benchmarks.drawing import curves
from benchmarks.load import Job, LoadProcess
from benchmarks.names import class_names
from benchmarks.open_load import OpenLoad, Plan, quantile
from benchmarks.process import ServiceProcess, running_service
from benchmarks.report import machine, progress, write, write_header, write_table

CLASSES = 100
IMAGE = str(IMAGES / "coffee.jpg")


@dataclass(frozen=True, slots=True)
class Point:
    """One load in one round. Rates in images a second; milliseconds of the accepted, from when they were due."""

    load: str
    offered: float
    goodput: float
    p50: float
    p95: float
    p99: float
    refused: int = 0
    refusal_p99: float = 0.0
    unexpected: int = 0


def closed(service: ServiceProcess, load: LoadProcess, path: str, concurrency: int, seconds: float) -> Point:
    found = load.run(Job(service.port, path, (IMAGE,), concurrency, seconds))
    p50, p95, p99 = (1e3 * found.quantile(share) for share in (0.5, 0.95, 0.99))
    return Point(f"{concurrency} at once", found.rate, found.rate, p50, p95, p99, unexpected=found.failures)


def opened(load: OpenLoad, plan: Plan, share: float) -> Point:
    """`share`: of the capacity, which the plan's rate is."""
    seen = load.run(plan)
    p50, p95, p99 = (1e3 * quantile(seen.accepted, part) for part in (0.5, 0.95, 0.99))
    refusal = 1e3 * quantile(seen.refused, 0.99) if seen.refused else 0.0
    unexpected = seen.unexpected + seen.not_sent
    return Point(
        f"{share:.0%} of capacity", plan.rate, seen.goodput, p50, p95, p99, len(seen.refused), refusal, unexpected
    )


def measure(arguments: argparse.Namespace) -> tuple[float, list[Point]]:
    """The capacity, which is the best median of the closed loops, and medians over the rounds."""
    settings = {"embedding_bytes": "0", "request_timeout": f"{arguments.patience:g}"}
    with running_service(**settings) as service, LoadProcess() as load, OpenLoad() as strangers:
        path = adapted_path(service, class_names(CLASSES))
        closed(service, load, path, max(arguments.concurrency), 2.0)
        loops: dict[int, list[Point]] = {number: [] for number in arguments.concurrency}
        for number in range(1, arguments.rounds + 1):
            progress(f"closed loops, round {number} of {arguments.rounds}")
            for at_once, points in loops.items():
                points.append(closed(service, load, path, at_once, arguments.seconds))
        capacity = max(statistics.median(point.goodput for point in points) for points in loops.values())
        shares: dict[float, list[Point]] = {share: [] for share in arguments.shares}
        for number in range(1, arguments.rounds + 1):
            progress(f"open loops, round {number} of {arguments.rounds}, capacity {capacity:.1f} images/s")
            for share, points in shares.items():
                plan = Plan(service.port, path, (IMAGE,), share * capacity, arguments.seconds)
                points.append(opened(strangers, plan, share))
    return capacity, [median(points) for points in (*loops.values(), *shares.values())]


def median(points: Sequence[Point]) -> Point:
    """Of every figure by itself; of counts the sum."""
    names = ("offered", "goodput", "p50", "p95", "p99", "refusal_p99")
    figures = {name: statistics.median(getattr(point, name) for point in points) for name in names}
    counts = {name: sum(getattr(point, name) for point in points) for name in ("refused", "unexpected")}
    return Point(points[0].load, **figures, **counts)


def write_points(capacity: float, points: Sequence[Point], folder: Path, command: Sequence[str]) -> None:
    columns = ("load", "offered/s", "answered/s", "p50, ms", "p95", "p99", "refused", "p99 of refusals, ms", "wrong")
    write_table(
        columns,
        [
            (one.load, f"{one.offered:.1f}", f"{one.goodput:.1f}", f"{one.p50:.1f}", f"{one.p95:.1f}", f"{one.p99:.1f}",
             one.refused, f"{one.refusal_p99:.1f}", one.unexpected)
            for one in points
        ],
    )  # fmt: skip
    write(f"Capacity {capacity:.1f} images/s.\n")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"command": list(command), "machine": machine(), "capacity": capacity, "points": list(map(asdict, points))}
    (folder / "load_curve.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    lines = {
        f"{way}, {name}": [(one.goodput if way == "closed" else one.offered, getattr(one, name)) for one in points
                           if one.load.endswith("at once") == (way == "closed")]
        for way in ("closed", "open") for name in ("p50", "p99")
    }  # fmt: skip
    drawn = {name: sorted(found) for name, found in lines.items() if found}
    curves(drawn, folder / "load_curve.png", xlabel="images/s (closed: answered, open: offered)", ylabel="ms")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load in a round")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.8, 1.2, 2.0], help="of capacity")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds within which an answer is wanted")
    parser.add_argument("--out", type=Path, default=Path("runs/load_curve"))
    arguments = parser.parse_args(argv)
    write_header("Latency against load", "load_curve", argv)
    capacity, points = measure(arguments)
    write_points(capacity, points, arguments.out, argv)


if __name__ == "__main__":
    main(sys.argv[1:])
