"""Load that does not wait for answers: requests start when their time has come, as those of many strangers do. Runs in
a process of its own. Reads one JSON plan a line from standard input, writes one JSON outcome a line."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.raw_http import GeneratorProcess, answer_head, answer_orders, prepared

CONNECTIONS = 1000
"""Open at once; what would need more counts as not sent, and is told."""

NO_ANSWER = "no answer"
"""Stands among the statuses for a connection that ended without one."""

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate` requests a second for `seconds`, evenly spaced, whatever becomes of them. `key` is sent as API key."""

    port: int
    path: str
    images: tuple[str, ...]
    rate: float
    seconds: float
    key: str = ""


@dataclass(slots=True)
class Seen:
    """Latencies in seconds, from when a request was due; those of refusals (429, 503) are apart.
    `late`: how long after that the generator itself came to sending."""

    statuses: dict[str, int] = field(default_factory=dict)
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    not_sent: int = 0
    seconds: float = 0.0

    @property
    def goodput(self) -> float:
        return len(self.accepted) / self.seconds if self.seconds else 0.0

    @property
    def unexpected(self) -> int:
        """Answers that overload does not excuse, and connections that ended without one."""
        excused = {"200", "429", "503", "504"}
        return sum(count for status, count in self.statuses.items() if status not in excused)


def quantile(values: Sequence[float], fraction: float) -> float:
    """NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else math.nan


class OpenLoad(GeneratorProcess):
    """The generator, started once and given plans. A context manager."""

    def __init__(self) -> None:
        super().__init__("benchmarks.open_load")

    def run(self, plan: Plan) -> Seen:
        return Seen(**self.ask(asdict(plan)))


@dataclass
class Generator:
    plan: Plan
    requests: Sequence[bytes]
    seen: Seen = field(default_factory=Seen)
    statuses: Counter[str] = field(default_factory=Counter)
    idle: list[Line] = field(default_factory=list)
    open: int = 0

    async def run(self) -> Seen:
        began = time.perf_counter()
        tasks = []
        for number in range(int(self.plan.rate * self.plan.seconds)):
            due = began + number / self.plan.rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            if self.idle or self.open < CONNECTIONS:
                tasks.append(asyncio.ensure_future(self._ask(self.requests[number % len(self.requests)], due)))
            else:
                self.seen.not_sent += 1
        await asyncio.gather(*tasks)
        self.seen.seconds = time.perf_counter() - began
        self.seen.statuses = dict(self.statuses)
        for _, writer in self.idle:
            writer.close()
        return self.seen

    async def _ask(self, request: bytes, due: float) -> None:
        try:
            line = self._kept() or await self._connect()
            self.seen.late.append(time.perf_counter() - due)
            line[1].write(request)
            head = await answer_head(line[0])
        except (OSError, asyncio.IncompleteReadError):
            self.statuses[NO_ANSWER] += 1
            self.open -= 1
            return
        self._note(head, time.perf_counter() - due)
        if b"\r\nconnection: close" in head:
            line[1].close()
            self.open -= 1
        else:
            self.idle.append(line)

    def _kept(self) -> Line | None:
        """An idle connection, as any client takes it: not one that the service has closed meanwhile."""
        while self.idle:
            line = self.idle.pop()
            if not line[0].at_eof():
                return line
            line[1].close()
            self.open -= 1
        return None

    async def _connect(self) -> Line:
        self.open += 1
        return await asyncio.open_connection("127.0.0.1", self.plan.port)

    def _note(self, head: bytes, seconds: float) -> None:
        status = head.split(b" ", 2)[1].decode()
        self.statuses[status] += 1
        if status == "200":
            self.seen.accepted.append(seconds)
        elif status in {"429", "503"}:
            self.seen.refused.append(seconds)
            self.seen.without_retry_after += b"\r\nretry-after:" not in head


def outcome(order: dict[str, Any]) -> dict[str, Any]:
    plan = Plan(**{**order, "images": tuple(order["images"])})
    requests = prepared(plan.port, plan.path, plan.images, key=plan.key)
    return asdict(asyncio.run(Generator(plan, requests).run()))


def main() -> None:
    answer_orders(outcome)


if __name__ == "__main__":
    main()
