"""A device that negates numbers, and a batcher in front of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from service.compute.batch_costs import UNBOUNDED, Bounds
from service.compute.batcher import Batcher

Ints = Batcher[str, int, int]
T = TypeVar("T")


class Device:
    """Negates numbers, one batch at a time, each only after `release` when `gated`."""

    def __init__(self, *, gated: bool = False) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.gated = gated

    def run(self, key: str, payloads: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append((key, list(payloads)))
        self.entered.release()
        if self.gated:
            assert self.gate.acquire(timeout=5)
        if key == "poison" and 13 in payloads:
            raise RuntimeError("13 cannot be negated")
        if key == "short":
            return []
        if key == "death":
            raise SystemExit
        return [-payload for payload in payloads]

    async def busy(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=5)


@asynccontextmanager
async def batcher(
    device: Device, *, max_waiting: int = 100, max_batch: int = 8, bounds: Bounds = UNBOUNDED
) -> AsyncIterator[Ints]:
    made: Ints = Batcher(device.run, max_batch=lambda _: max_batch, max_waiting=max_waiting, bounds=lambda: bounds)
    made.start()
    try:
        yield made
    finally:
        device.gate.release(1000)
        await made.stop()


def start(call: Awaitable[T]) -> asyncio.Future[T]:
    return asyncio.ensure_future(call)
