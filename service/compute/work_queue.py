"""What waits for the device thread: items that form batches, fair between clients, and longer jobs. Thread-safe; runs
nothing itself."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.compute.fair_shares import FairOrder

Key = TypeVar("Key", bound=Hashable)
Payload = TypeVar("Payload")
Result = TypeVar("Result")

Checkpoint = Callable[[], None]
"""Given to a job, which calls it between its slices."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who work is for, and until when (`time.perf_counter()`) its outcome is of use."""

    client: str = "local"
    until: float = math.inf


ANYBODY = Asker()


@dataclass(frozen=True, slots=True)
class Load(Generic[Key]):
    """How many items wait, by kind and by client."""

    kinds: Mapping[Key, int]
    clients: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.clients.values())


@dataclass(slots=True, eq=False)
class Item(Generic[Key, Payload, Result]):
    """One payload of a batch. Its future carries the outcome as a value, be it a result or an exception."""

    key: Key
    payload: Payload
    future: asyncio.Future[Result | Exception]
    since: float = field(default_factory=time.perf_counter)
    gone: bool = False
    client: str = ANYBODY.client
    cost: float = 1.0

    def settle(self, outcome: Result | Exception) -> None:
        if not self.future.done():
            self.future.set_result(outcome)


@dataclass(slots=True, eq=False)
class Job:
    """Work that runs alone. Lower levels go first; level 0 is that of the items."""

    level: int
    work: Callable[[Checkpoint], Any]
    future: asyncio.Future[Any]
    since: float = field(default_factory=time.perf_counter)
    gone: bool = False

    def settle(self, outcome: object) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


Line = list[tuple[float, int, Item[Key, Payload, Result]]]
"""A heap by start tag, then by arrival."""


class WorkQueue(Generic[Key, Payload, Result]):
    """Takes are made by one thread, puts by another. Work of callers that went away is never taken."""

    def __init__(self, *, max_batch: Callable[[Key], int]) -> None:
        self._max_batch = max_batch
        self._items: dict[Key, Line[Key, Payload, Result]] = {}
        self._order = FairOrder()
        self._clients: Counter[str] = Counter()
        self._jobs: list[tuple[int, int, Job]] = []
        self._numbers = itertools.count()
        self._taken: dict[int, Item[Key, Payload, Result] | Job] = {}
        self._open = True
        self._changed = threading.Condition()

    @property
    def items_waiting(self) -> int:
        with self._changed:
            return sum(len(line) for line in self._items.values())

    def load(self) -> Load[Key]:
        with self._changed:
            return Load({key: len(line) for key, line in self._items.items()}, dict(self._clients))

    @property
    def jobs_waiting(self) -> int:
        with self._changed:
            return sum(not job.gone for *_, job in self._jobs)

    def oldest_seconds(self, now: float) -> float:
        with self._changed:
            return max((now - item.since for line in self._items.values() for *_, item in line), default=0.0)

    def add_items(self, items: Sequence[Item[Key, Payload, Result]]) -> None:
        with self._changed:
            for item in items:
                entry = (self._order.tag(item.client, item.cost), next(self._numbers), item)
                heapq.heappush(self._items.setdefault(item.key, []), entry)
            self._clients.update(item.client for item in items)
            self._changed.notify()

    def add_job(self, job: Job) -> None:
        with self._changed:
            heapq.heappush(self._jobs, (job.level, next(self._numbers), job))
            self._changed.notify()

    def discard(self, items: Iterable[Item[Key, Payload, Result]]) -> None:
        """Forgets items that still wait and marks the others as gone. Costs nothing for items that are done."""
        open_items = [item for item in items if item.future.cancelled()]
        if not open_items:
            return
        with self._changed:
            for item in open_items:
                item.gone = True
            for key in {item.key for item in open_items} & self._items.keys():
                line = self._items[key]
                self._count_out(item for *_, item in line if item.gone)
                kept = [entry for entry in line if not entry[2].gone]
                heapq.heapify(kept)
                self._keep(key, kept)

    def wait(self) -> bool:
        """Blocks until something can be taken; False when the queue was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._jobs or not self._open)
            return self._open

    def take(
        self, *, below: int | None = None, patience: float | None = None
    ) -> list[Item[Key, Payload, Result]] | Job | None:
        """The items of one kind whose turn it is, else the first job of a level `below`. With `patience`, a job that
        waited for so many seconds goes first."""
        with self._changed:
            job = self._first_job(below)
            late = job is not None and patience is not None and time.perf_counter() - job.since > patience
            if self._items and not late:
                return self._take_items()
            if job is not None:
                heapq.heappop(self._jobs)
                self._taken[id(job)] = job
            return job

    def done(self, works: Iterable[Item[Key, Payload, Result] | Job]) -> None:
        with self._changed:
            for work in works:
                self._taken.pop(id(work), None)

    def in_flight(self) -> list[Item[Key, Payload, Result] | Job]:
        """Taken and not yet done."""
        with self._changed:
            return list(self._taken.values())

    def drain(self) -> list[Item[Key, Payload, Result] | Job]:
        """Everything that waits; the queue is empty afterwards."""
        with self._changed:
            items = [item for line in self._items.values() for *_, item in line]
            jobs = [job for *_, job in self._jobs]
            self._items.clear()
            self._clients.clear()
            self._jobs.clear()
            return [*items, *jobs]

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify()

    def _first_job(self, below: int | None) -> Job | None:
        while self._jobs and self._jobs[0][2].gone:
            heapq.heappop(self._jobs)
        if not self._jobs or (below is not None and self._jobs[0][0] >= below):
            return None
        return self._jobs[0][2]

    def _take_items(self) -> list[Item[Key, Payload, Result]]:
        key = min(self._items, key=lambda kind: self._items[kind][0][:2])
        line = self._items[key]
        self._order.serve(line[0][0])
        batch = [heapq.heappop(line)[2] for _ in range(min(len(line), self._max_batch(key)))]
        self._keep(key, line)
        self._count_out(batch)
        self._taken.update((id(item), item) for item in batch)
        return batch

    def _keep(self, key: Key, line: Line[Key, Payload, Result]) -> None:
        if line:
            self._items[key] = line
        else:
            self._items.pop(key, None)

    def _count_out(self, items: Iterable[Item[Key, Payload, Result]]) -> None:
        for item in items:
            self._clients[item.client] -= 1
            if not self._clients[item.client]:
                del self._clients[item.client]
