"""Overload and mixed traffic, from loopback only: what is still answered at twice the capacity, how soon the rest is
refused, what a noisy client costs its neighbour, and whether anything grows."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from benchmarks.load import Job, LoadProcess
from benchmarks.names import class_names
from benchmarks.open_load import OpenLoad, Plan, Seen, quantile
from benchmarks.process import ServiceProcess, running_service
from benchmarks.report import progress, write, write_header, write_table

IMAGES = tuple(str(path) for path in sorted((Path(__file__).parents[1] / "examples" / "images").glob("*.jpg")))
DEADLINE = 2.0
"""Seconds within which an answer is wanted."""

SETTINGS = {"embedding_bytes": "0", "request_timeout": str(DEADLINE), "log_level": "error"}
"""Every image goes through the tower, as if none had been seen before."""

CHURNED = 20
"""Label sets kept while ever new ones come."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of the process: resident MiB, file descriptors, threads."""

    mib: float
    files: int
    threads: int


def size_of(service: ServiceProcess) -> Size:
    """Of Linux only."""
    folder = Path(f"/proc/{service.pid}")
    lines = (folder / "status").read_text(encoding="utf-8").splitlines()
    told = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return Size(int(told["VmRSS"][0]) / 1024, len(list((folder / "fd").iterdir())), int(told["Threads"][0]))


@contextmanager
def churn(service: ServiceProcess) -> Iterator[list[int]]:
    """Label sets come and go until the block ends. The list holds how many did."""
    over, done = threading.Event(), [0]

    def turn() -> None:
        kept: list[str] = []
        with httpx.Client(base_url=service.url, timeout=30.0, trust_env=False) as client:
            for salt in count(1):
                if over.wait(0.2):
                    return
                answer = client.post("/v1/label-sets", json={"classes": class_names(5, salt=salt)})
                if answer.is_success:
                    kept.append(answer.json()["id"])
                    done[0] += 1
                if len(kept) > CHURNED:
                    client.delete(f"/v1/label-sets/{kept.pop(0)}")

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def capacity(service: ServiceProcess, path: str, seconds: float) -> float:
    """Images a second that a closed loop of 32 connections gets."""
    with LoadProcess() as load:
        load.run(Job(service.port, path, IMAGES, concurrency=8, seconds=1.0))  # compiles, allocates, connects
        return load.run(Job(service.port, path, IMAGES, concurrency=32, seconds=seconds)).rate


@dataclass(frozen=True, slots=True)
class Soak:
    capacity: float
    seen: Seen
    before: Size
    after: Size
    churned: int

    @property
    def growth(self) -> float:
        """Of the resident memory, in percent, from the warm process to the end."""
        return 100 * (self.after.mib / self.before.mib - 1)


def soak(service: ServiceProcess, *, seconds: float, factor: float = 2.0, warm: float = 5.0) -> Soak:
    classes = {"classes": ["cat", "dog", "cup of coffee", "rocket", "astronaut", "camera"]}
    made = service.client.post("/v1/label-sets", json=classes, headers={"Prefer": "wait=60"}).json()
    path = f"/v1/classify?label_set={made['id']}"
    peak = capacity(service, path, warm)
    with OpenLoad() as load, churn(service) as churned:
        load.run(Plan(service.port, path, IMAGES, factor * peak, warm))  # until queues and allocators are filled
        before = size_of(service)
        seen = load.run(Plan(service.port, path, IMAGES, factor * peak, seconds))
    time.sleep(1.0)
    return Soak(peak, seen, before, size_of(service), churned[0])


def row(found: Soak) -> tuple[str, ...]:
    seen, before, after = found.seen, found.before, found.after
    return (
        f"{found.capacity:.0f}/s",
        f"{seen.goodput:.0f}/s ({100 * seen.goodput / found.capacity:.0f} %)",
        f"{1000 * quantile(seen.accepted, 0.99):.0f} ms",
        f"{1000 * quantile(seen.refused, 0.5):.1f} / {1000 * quantile(seen.refused, 0.99):.1f} ms",
        json.dumps(seen.statuses).replace('"', "").strip("{}"),
        f"{seen.without_retry_after}",
        f"{before.mib:.0f} -> {after.mib:.0f} MiB",
        f"{before.files} -> {after.files}",
        f"{before.threads} -> {after.threads}",
        f"{found.churned}",
    )


COLUMNS = ("closed-loop capacity", "goodput", "accepted p99", "refused p50 / p99", "statuses", "no Retry-After",
           "memory", "files", "threads", "label sets churned")  # fmt: skip


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--in-flight", type=int, default=64, help="the service's max_in_flight")
    parser.add_argument("--factor", type=float, default=2.0, help="of the capacity that is measured first")
    arguments = parser.parse_args(argv)
    write_header("Soak", "soak", argv)
    with running_service(**SETTINGS, max_in_flight=str(arguments.in_flight)) as service:
        progress(f"{arguments.seconds:g} s at {arguments.factor:g} times the capacity")
        found = soak(service, seconds=arguments.seconds, factor=arguments.factor)
    write_table(COLUMNS, [row(found)])
    write(f"Load, service and label-set churn share this machine; answers were wanted within {DEADLINE:g} s.\n")
    return int(bool(found.seen.unexpected))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
