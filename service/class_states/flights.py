"""One class state on its way: status and progress that many may watch, computed once. Runs nothing itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import anyio

from adapters.base import Adapter, ClassState, LabelSet, Support
from service.errors import OverBudget

PROGRESS_EVERY = 0.05
"""Seconds between two progress reports of one adaptation."""

Status = Literal["queued", "adapting", "ready", "failed", "awaiting-support"]


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """A class state that somebody wants, and the key under which it is found again. `support` fetches the images it is
    learnt from; `deadline` is how many seconds computing it may take, waiting included. `optional`: the service itself
    chose the method, so that declining it for its cost is an answer and no failure."""

    key: str
    labels: LabelSet
    adapter: Adapter
    support: Callable[[], Awaitable[Support]] | None = None
    deadline: float | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    status: Status
    progress: float = 0.0
    error: str | None = None
    declined: str | None = None
    """Why the service serves plain zero-shot for good, where it chose so."""

    @classmethod
    def failed(cls, want: Want, progress: float, failure: Exception) -> Snapshot:
        if isinstance(failure, OverBudget) and want.optional:
            return cls("ready", 1.0, declined=str(failure))
        return cls("failed", progress, str(failure))


@dataclass(slots=True, eq=False)
class Flight:
    """Used on the event loop only. Watchers see the latest state, not every step; none of them can hold it up."""

    want: Want
    snapshot: Snapshot = field(default_factory=lambda: Snapshot("queued"))
    state: ClassState | None = None
    failure: Exception | None = None
    looked_up: bool = False
    """Whether the stores were asked; until then a known state may be a moment away."""
    released: bool = False
    """Nobody shall wait any longer, because the service is going down."""
    task: asyncio.Task[None] | None = None
    also: Callable[[float], None] | None = None
    """Hears of progress, too."""
    since: float = field(default_factory=time.perf_counter)
    begun: float | None = None
    """When its work began on the device."""
    _pulse: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def final(self) -> bool:
        return self.snapshot.status in {"ready", "failed", "awaiting-support"}

    def missed(self) -> None:
        """No store has the state."""
        self.looked_up = True
        self._wake()

    def advance(self, fraction: float) -> None:
        if not self.final:
            self.begun = self.begun or time.perf_counter()
            self._become(Snapshot("adapting", max(self.snapshot.progress, min(fraction, 1.0))))
            if self.also is not None:
                self.also(self.snapshot.progress)

    def succeed(self, state: ClassState) -> None:
        self.state = state
        self._become(Snapshot("ready", 1.0))

    def fail(self, failure: Exception) -> None:
        if self.final:
            return
        self.failure = failure
        self._become(Snapshot.failed(self.want, self.snapshot.progress, failure))

    def release(self) -> None:
        self.released = True
        self._wake()

    async def answered(self) -> None:
        """Returns once the stores were asked, or the outcome is known."""
        while not (self.looked_up or self.final or self.released):
            await self._pulse.wait()

    async def settled(self, seconds: float | None = None) -> None:
        """Returns once the outcome is known, after `seconds`, or when released."""
        with anyio.move_on_after(seconds):
            while not (self.final or self.released):
                await self._pulse.wait()

    async def changed(self, since: Snapshot, seconds: float) -> bool:
        """Whether the snapshot became another one than `since` within `seconds`."""
        with anyio.move_on_after(seconds):
            while self.snapshot == since and not self.released:
                await self._pulse.wait()
        return self.snapshot != since

    def _become(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.looked_up = True
        self._wake()

    def _wake(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()


class Reporter:
    """A progress callback for the device thread: passes on what is news, and remembers when work began."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._loop = asyncio.get_running_loop()
        self._told = 0.0
        self.at = time.perf_counter()

    def __call__(self, fraction: float) -> None:
        now = time.perf_counter()
        if not self._told:
            self.at = now
        if now - self._told >= PROGRESS_EVERY:
            self._told = now
            self._loop.call_soon_threadsafe(self._flight.advance, fraction)


def settled_flight(
    want: Want, *, state: ClassState | None = None, failure: Exception | None = None, held: Snapshot | None = None
) -> Flight:
    """A flight whose outcome is known already, or that does not begin because it is `held`."""
    flight = Flight(want)
    if held is not None:
        flight.snapshot = held
    elif state is not None:
        flight.succeed(state)
    else:
        assert failure is not None
        flight.fail(failure)
    return flight
