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
TREND_STEPS = 5
"""Steps that one point of the trend covers: at little traffic a single step often has nothing in it."""

ASK_EVERY = 5
"""Steps between two questions to the dependencies."""


class RollingWindow:
    """Used on the event loop only."""

    def __init__(self, metrics: Metrics, *, step: float = STEP_SECONDS, kept: int = STEPS_KEPT) -> None:
        self.step = step
        self._metrics = metrics
        self._steps: deque[Step] = deque(maxlen=kept)
        self._trend: deque[Step] = deque(maxlen=kept)
        self._readings: deque[Reading] = deque([read(metrics, time.time())], maxlen=TREND_STEPS)

    @property
    def steps(self) -> Sequence[Step]:
        """Oldest first; they do not overlap."""
        return tuple(self._steps)

    @property
    def trend(self) -> Sequence[Step]:
        """As many as `steps`, each of which covers `TREND_STEPS` of them or as many as there were."""
        return tuple(self._trend)

    @property
    def seconds(self) -> float:
        """How far it can reach back."""
        return self.step * (self._steps.maxlen or 0)

    def read(self) -> Reading:
        """What the metrics say now."""
        return read(self._metrics, time.time())

    def sample(self) -> None:
        reading = self.read()
        if reading.at <= self._readings[-1].at:  # a clock that was set back makes no step
            self._readings.clear()
        else:
            self._steps.append(between(self._readings[-1], reading))
            self._trend.append(between(self._readings[0], reading))
        self._readings.append(reading)

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
