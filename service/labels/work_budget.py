"""How long an adaptation will take, and whether this deployment may spend so long: a cost model of prompts through the
text tower, started by a measurement at start-up and corrected by every adaptation that was finished."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from adapters.base import Adapter, LabelSet
from service.class_states.flights import Flight, Snapshot, Want
from service.errors import OverBudget

ZERO_SHOT = "zero-shot"

TRUSTED_PROGRESS = 0.1
"""Fraction done from which the time it took tells more than the model."""

WEIGHT = 0.3
"""Of the newest adaptation in the speed of its method."""


@runtime_checkable
class Counted(Protocol):
    """An adapter that knows its work beforehand."""

    def prompts(self, labels: LabelSet) -> int | None:
        """Passes of one prompt through the text tower; one with a gradient counts three. None if that depends on
        more than the label set."""
        ...


class WorkBudget:
    """Used on the event loop only. Methods that are not `Counted` are neither estimated before they are under way nor
    judged; plain zero-shot is what everything else falls back to, so it is never refused."""

    def __init__(self, max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self._calibrated: float | None = None
        self._learnt: dict[str, float] = {}

    def calibrate(self, seconds_per_prompt: float) -> None:
        """Measured on this machine; stands for a method until one of its adaptations is through."""
        self._calibrated = seconds_per_prompt

    def learn(self, want: Want, seconds: float) -> None:
        """An adaptation took so long, images that were served meanwhile included."""
        prompts = _prompts(want.adapter, want.labels)
        if prompts and want.support is None:
            name, speed = want.adapter.name, seconds / prompts
            self._learnt[name] = (1 - WEIGHT) * self._learnt.get(name, speed) + WEIGHT * speed

    def estimate(self, adapter: Adapter, labels: LabelSet) -> float | None:
        """Seconds of an adaptation with the device to itself; None if nobody can tell."""
        speed = self._learnt.get(adapter.name, self._calibrated)
        prompts = _prompts(adapter, labels)
        return None if speed is None or prompts is None else speed * prompts

    def check(self, want: Want) -> None:
        """Raises `OverBudget` for an adaptation that would take longer than this deployment may spend."""
        if want.adapter.name == ZERO_SHOT or want.support is not None:
            return
        seconds = self.estimate(want.adapter, want.labels)
        if seconds is not None and seconds > self.max_seconds:
            raise OverBudget(
                f"adapting {len(want.labels.classes)} classes by {want.adapter.name} would take about {seconds:.0f} s "
                f"here; the budget is {self.max_seconds:g} s (SELFTPT_MAX_ADAPT_SECONDS). Plain zero-shot serves them.",
                limit="max_adapt_seconds",
                allowed=self.max_seconds,
                actual=round(seconds, 1),
            )

    def seconds_left(
        self, want: Want, snapshot: Snapshot, begun: float | None, ahead: Sequence[Flight] = ()
    ) -> float | None:
        """Until the state is there, behind those that are `ahead` of it on the device; None if nobody can tell.
        `begun` is when its work began in this process."""
        own = self._left(want, snapshot, begun)
        waits = [self._left(flight.want, flight.snapshot, flight.begun) for flight in ahead]
        return None if own is None else own + sum(seconds or 0.0 for seconds in waits)

    def _left(self, want: Want, snapshot: Snapshot, begun: float | None) -> float | None:
        done = snapshot.progress
        if begun is not None and done >= TRUSTED_PROGRESS:
            return (time.perf_counter() - begun) * (1 - done) / done
        seconds = self.estimate(want.adapter, want.labels)
        return None if seconds is None else seconds * (1 - done)


def _prompts(adapter: Adapter, labels: LabelSet) -> int | None:
    return adapter.prompts(labels) if isinstance(adapter, Counted) else None
