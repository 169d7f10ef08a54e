"""The last minutes in small steps, kept in memory and bounded, so that a page can show them without a time-series
database. Sampling also notices a late event loop and asks the store whether it is there."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from service.telemetry.metrics import Metrics
from service.telemetry.readings import Reading, Step, between, read

STEP_SECONDS = 2.0
STEPS_KEPT = 150
ASK_EVERY = 5
"""Steps between two questions to the dependencies."""


class RollingWindow:
    """Used on the event loop only."""

    def __init__(self, metrics: Metrics, *, step: float = STEP_SECONDS, kept: int = STEPS_KEPT) -> None:
        self.step = step
        self._metrics = metrics
        self._steps: deque[Step] = deque(maxlen=kept)
        self._last: Reading = read(metrics, time.time())

    @property
    def steps(self) -> Sequence[Step]:
        """Oldest first."""
        return tuple(self._steps)

    @property
    def seconds(self) -> float:
        """How far it can reach back."""
        return self.step * (self._steps.maxlen or 0)

    def read(self) -> Reading:
        """What the metrics say now."""
        return read(self._metrics, time.time())

    def sample(self) -> None:
        reading = self.read()
        if reading.at > self._last.at:  # a clock that was set back makes no step
            self._steps.append(between(self._last, reading))
        self._last = reading

    async def run(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Samples until cancelled; `ask` is awaited now and then to find out how the dependencies are."""
        turn = 0
        while True:
            if turn % ASK_EVERY == 0:
                await ask()
            turn += 1
            due = time.perf_counter() + self.step
            await asyncio.sleep(self.step)
            self._metrics.loop_lag.observe(max(0.0, time.perf_counter() - due))
            self.sample()
