"""Load on a running service, closed (each connection waits for its answer) or open (requests come when they come).

In an open run latency counts from the moment a request was due, so that a service which falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import httpx

TIMING = re.compile(r"([\w-]+);dur=([\d.]+)")
MOST_UNDER_WAY = 2000
"""Requests of an open run that may wait for answers before further ones are counted as not sent."""


@dataclass(frozen=True, slots=True)
class Job:
    """`rate` in requests a second makes an open run; without it, `concurrency` connections make a closed one. What
    happens in the first `warm_up` seconds is not counted."""

    url: str
    params: Mapping[str, str | list[str]]
    headers: Mapping[str, str]
    bodies: Sequence[tuple[str, bytes]]
    concurrency: int
    seconds: float
    rate: float | None = None
    warm_up: float = 1.0
    timeout: float = 60.0


@dataclass(slots=True)
class Tally:
    """Latencies in seconds of what was answered with 200, and how everything else ended."""

    latencies: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    began: float = 0.0
    ended: float = 0.0
    processor_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return max(self.ended - self.began, 1e-9)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        return quantile(self.latencies, share)

    def record(self, latency: float, response: httpx.Response) -> None:
        self.ended = time.perf_counter()
        if response.status_code != httpx.codes.OK:
            self.failures[f"HTTP {response.status_code}"] += 1
            return
        self.latencies.append(latency)
        for stage, milliseconds in TIMING.findall(response.headers.get("Server-Timing", "")):
            self.stages.setdefault(stage, []).append(float(milliseconds))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; nan of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


async def run_load(
    job: Job,
    tally: Tally,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Fills `tally` as it goes, so that a run that is broken off leaves what it found."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=job.timeout, limits=limits, transport=transport) as http:
        sender = Sender(http, job, tally)
        processor = time.process_time()
        tally.began = time.perf_counter() + job.warm_up
        ticking = asyncio.ensure_future(tick_on(tick))
        try:
            await (closed(sender, job) if job.rate is None else arrivals(sender, job, job.rate))
        finally:
            ticking.cancel()
            tally.processor_seconds = time.process_time() - processor


async def tick_on(tick: Callable[[], None]) -> None:
    while True:
        tick()
        await asyncio.sleep(0.2)


@dataclass(slots=True)
class Sender:
    http: httpx.AsyncClient
    job: Job
    tally: Tally
    bodies: Iterator[tuple[str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = cycle(self.job.bodies)

    async def send(self, due: float) -> None:
        kind, content = next(self.bodies)
        headers = {**self.job.headers, "Content-Type": kind}
        try:
            response = await self.http.post(
                self.job.url, params=dict(self.job.params), headers=headers, content=content
            )
        except httpx.TransportError as error:
            if due >= self.tally.began:
                self.tally.ended = time.perf_counter()
                self.tally.failures[type(error).__name__] += 1
            return
        if due >= self.tally.began:
            self.tally.record(time.perf_counter() - due, response)


async def closed(sender: Sender, job: Job) -> None:
    end = sender.tally.began + job.seconds

    async def connection() -> None:
        while (now := time.perf_counter()) < end:
            await sender.send(now)

    await asyncio.gather(*(connection() for _ in range(job.concurrency)))


async def arrivals(sender: Sender, job: Job, rate: float) -> None:
    """Poisson arrivals, drawn the same way every time."""
    pauses = random.Random(0)
    due = time.perf_counter()
    end = sender.tally.began + job.seconds
    under_way: set[asyncio.Task[None]] = set()
    while (due := due + pauses.expovariate(rate)) < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(under_way) >= MOST_UNDER_WAY:
            sender.tally.failures["not sent"] += 1
            continue
        task = asyncio.ensure_future(sender.send(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
