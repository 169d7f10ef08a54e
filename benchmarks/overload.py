"""More load than can be served, from strangers who do not wait for each other, while label sets come and go: what is
still answered, how soon the rest is refused, and whether anything grows."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from benchmarks import growth
from benchmarks.growth import Growth, at_rest, looked_at
from benchmarks.load import Job, LoadProcess
from benchmarks.meanwhile import meanwhile
from benchmarks.names import class_names
from benchmarks.open_load import OpenLoad, Plan, Seen, quantile
from benchmarks.process import ServiceProcess

IMAGES = tuple(str(path) for path in sorted((Path(__file__).parents[1] / "examples" / "images").glob("*.jpg")))
CLASSES = ("cat", "dog", "cup of coffee", "rocket", "astronaut", "camera")
DEADLINE = 2.0
"""Seconds within which an answer is wanted."""

SETTINGS = {"embedding_bytes": "0", "request_timeout": str(DEADLINE), "log_level": "error"}
"""Every image goes through the tower, as if none had been seen before."""

CHURNED = 20
"""Label sets kept while ever new ones come."""


@contextmanager
def churn(service: ServiceProcess) -> Iterator[list[int]]:
    """Label sets come and go until the block ends. The list holds how many did."""
    done = [0]

    def turn(over: threading.Event) -> None:
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

    with meanwhile(turn):
        yield done


def label_set_path(
    service: ServiceProcess, classes: Sequence[str] = CLASSES, headers: Mapping[str, str] | None = None
) -> str:
    """Where to classify by a label set that is ready."""
    wait = {"Prefer": "wait=60", **(headers or {})}
    made = service.client.post("/v1/label-sets", json={"classes": list(classes)}, headers=wait).json()
    return f"/v1/classify?label_set={made['id']}"


def capacity(service: ServiceProcess, path: str, seconds: float, *, key: str = "") -> float:
    """Images a second that a closed loop of 32 connections gets."""
    with LoadProcess() as load:
        load.run(Job(service.port, path, IMAGES, concurrency=8, seconds=1.0, key=key))  # compiles, allocates, connects
        return load.run(Job(service.port, path, IMAGES, concurrency=32, seconds=seconds, key=key)).rate


@dataclass(frozen=True, slots=True)
class Overload:
    """`capacity` beside the same churn. `seen` by the generator. In the service, in seconds: `refusal_p99` from a
    request to its refusal, `lag_p99` how late its event loop was."""

    capacity: float
    seen: Seen
    growth: Growth
    churned: int
    refusal_p99: float
    lag_p99: float

    def row(self) -> tuple[str, ...]:
        """Under `COLUMNS`."""
        seen = self.seen
        statuses = ", ".join(f"{status}: {number}" for status, number in sorted(seen.statuses.items()))
        return (
            f"{self.capacity:.0f}/s",
            f"{seen.goodput:.0f}/s ({100 * seen.goodput / self.capacity:.0f} %)",
            f"{1000 * quantile(seen.accepted, 0.99):.0f} ms",
            f"{1000 * quantile(seen.refused, 0.5):.1f} / {1000 * quantile(seen.refused, 0.99):.1f} ms",
            f"<= {1000 * self.refusal_p99:.1f} ms",
            f"<= {1000 * self.lag_p99:.1f} ms",
            f"{1000 * quantile(seen.late, 0.99):.0f} ms",
            f"{statuses}, not sent: {seen.not_sent}",
            f"{seen.without_retry_after}",
            *self.growth.row(),
            f"{self.churned}",
        )


COLUMNS = ("closed-loop capacity", "goodput", "accepted p99", "refused p50 / p99", "refused p99 in the service",
           "event loop late p99", "generator late p99",
           "statuses", "no Retry-After", *growth.COLUMNS, "label sets churned")  # fmt: skip


def overload(service: ServiceProcess, *, seconds: float, factor: float = 2.0, warm: float = 5.0) -> Overload:
    path = label_set_path(service)
    with OpenLoad() as load, churn(service) as churned:
        peak = capacity(service, path, warm)
        load.run(Plan(service.port, path, IMAGES, factor * peak, warm))  # until queues and allocators are filled
        before, counted = at_rest(service, seconds=3.0), (refusals(service), lags(service))
        with looked_at(service, every=max(1.0, seconds / 100)) as sizes:
            seen = load.run(Plan(service.port, path, IMAGES, factor * peak, seconds))
        refused, lagged = (
            bucket_quantile(late, early, 0.99)
            for late, early in zip((refusals(service), lags(service)), counted, strict=True)
        )
    return Overload(peak, seen, Growth(before, at_rest(service), tuple(sizes)), churned[0], refused, lagged)


def refusals(service: ServiceProcess) -> dict[float, float]:
    """How many so far by the upper edge of their bucket of duration (cumulative), as the service timed them."""
    return buckets(service, "selftpt_request_duration_seconds", status="429")


def lags(service: ServiceProcess) -> dict[float, float]:
    return buckets(service, "selftpt_event_loop_lag_seconds")


def buckets(service: ServiceProcess, name: str, **labels: str) -> dict[float, float]:
    """Summed over all series that carry these labels."""
    found: dict[float, float] = {}
    for sample in service.samples(f"{name}_bucket"):
        if labels.items() <= sample.labels.items():
            edge = float(sample.labels["le"])
            found[edge] = found.get(edge, 0.0) + sample.value
    return found


def bucket_quantile(late: dict[float, float], early: dict[float, float], fraction: float) -> float:
    """The edge below which that part of a cumulative histogram lies, of what was added; NaN of nothing."""
    added = {edge: number - early.get(edge, 0.0) for edge, number in late.items()}
    total = added.get(math.inf, 0.0)
    return min((edge for edge, number in added.items() if total and number >= fraction * total), default=math.nan)
