"""A lean load generator: raw-body JPEGs over keep-alive connections, in a process of its own so that it shares no
interpreter with what it measures. Reads one JSON job a line from standard input, writes one JSON outcome a line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.raw_http import GeneratorProcess, answer_head, answer_orders, prepared

PAUSE = 0.01
"""Seconds before a connection that was ended is made anew."""


@dataclass(frozen=True, slots=True)
class Job:
    """`seconds` of load from `concurrency` connections, each sending its next request once it was answered.
    `key` is sent as API key."""

    port: int
    path: str
    images: tuple[str, ...]
    concurrency: int
    seconds: float
    content_type: str = "image/jpeg"
    key: str = ""
    settle: float = 0.0
    """Seconds at the beginning that do not count. Where there are any, what is answered after the time does not either:
    so much is done in the time in between while the queue is neither filled nor emptied."""


@dataclass(frozen=True, slots=True)
class Outcome:
    latencies: tuple[float, ...]
    seconds: float
    failures: int

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile(self, fraction: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


class LoadProcess(GeneratorProcess):
    """The generator, started once and given jobs. A context manager."""

    def __init__(self) -> None:
        super().__init__("benchmarks.load")

    def run(self, job: Job) -> Outcome:
        answer = self.ask(asdict(job))
        return Outcome(tuple(answer["latencies"]), answer["seconds"], answer["failures"])


async def generate(job: Job, requests: Sequence[bytes]) -> Outcome:
    """A connection that ends without an answer is a failure, and made anew."""
    latencies: list[float] = []
    failures = 0
    begun = time.perf_counter()
    end = begun + job.seconds

    def counts(now: float) -> bool:
        return not job.settle or begun + job.settle <= now <= end

    async def connection(number: int) -> int:
        """Until the time is over or the connection ends; the number of the next request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", job.port)
        nonlocal failures
        try:
            while (start := time.perf_counter()) < end:
                writer.write(requests[number % len(requests)])
                number += 1
                ok = (await answer_head(reader)).split(b" ", 2)[1] == b"200"
                failures += not ok
                now = time.perf_counter()
                if ok and counts(now):
                    latencies.append(now - start)
        finally:
            writer.close()
        return number

    async def caller(number: int) -> None:
        nonlocal failures
        while time.perf_counter() < end:
            try:
                number = await connection(number)
            except (OSError, asyncio.IncompleteReadError):
                failures += 1
                await asyncio.sleep(PAUSE)

    await asyncio.gather(*(caller(first) for first in range(job.concurrency)))
    seconds = job.seconds - job.settle if job.settle else time.perf_counter() - begun
    return Outcome(tuple(latencies), seconds, failures)


def outcome(order: dict[str, Any]) -> dict[str, Any]:
    job = Job(**{**order, "images": tuple(order["images"])})
    requests = prepared(job.port, job.path, job.images, key=job.key, content_type=job.content_type)
    return asdict(asyncio.run(generate(job, requests)))


def main() -> None:
    answer_orders(outcome)


if __name__ == "__main__":
    main()
