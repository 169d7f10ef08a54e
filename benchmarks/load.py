"""A lean load generator: raw-body JPEGs over keep-alive connections, in a process of its own so that it shares no
interpreter with what it measures. Reads one JSON job a line from standard input, writes one JSON outcome a line."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.process import tied_command


@dataclass(frozen=True, slots=True)
class Job:
    """`seconds` of load from `concurrency` connections, each sending its next request once it was answered."""

    port: int
    path: str
    images: tuple[str, ...]
    concurrency: int
    seconds: float


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


class LoadProcess:
    """The generator, started once and given jobs. A context manager."""

    def __enter__(self) -> LoadProcess:
        self._process = subprocess.Popen(
            tied_command(sys.executable, "-m", "benchmarks.load"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, job: Job) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Outcome(tuple(answer["latencies"]), answer["seconds"], answer["failures"])


async def generate(job: Job, requests: Sequence[bytes]) -> Outcome:
    latencies: list[float] = []
    failures = 0
    end = time.perf_counter() + job.seconds

    async def connection(first: int) -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection("127.0.0.1", job.port)
        number = first
        while (start := time.perf_counter()) < end:
            writer.write(requests[number % len(requests)])
            ok = await _answered(reader)
            failures += not ok
            if ok:
                latencies.append(time.perf_counter() - start)
            number += 1
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(connection(first) for first in range(job.concurrency)))
    return Outcome(tuple(latencies), time.perf_counter() - start, failures)


def prepared(job: Job) -> list[bytes]:
    """One whole request per image."""
    bodies = [Path(image).read_bytes() for image in job.images]
    head = f"POST {job.path} HTTP/1.1\r\nHost: 127.0.0.1:{job.port}\r\nContent-Type: image/jpeg\r\n"
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


async def _answered(reader: asyncio.StreamReader) -> bool:
    """Whether the answer was a 200. The service always says how long its answers are."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, rest = head.partition(b"\r\ncontent-length:")
    await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    return head.split(b" ", 2)[1] == b"200"


def main() -> None:
    for line in sys.stdin:
        fields = json.loads(line)
        job = Job(**{**fields, "images": tuple(fields["images"])})
        outcome = asyncio.run(generate(job, prepared(job)))
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
