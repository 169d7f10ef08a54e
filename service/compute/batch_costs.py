"""What batches cost: a running fit of seconds over size for every kind, from the batches that were run."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

KEPT = 0.95
"""Weight of the past at each new batch: the last twenty or so count."""

FIRST = 0.05
"""Weight of a kind's first batch, which warms up caches and kernels."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a batch should take: `long` seconds, or longer where else the part that any batch takes would weigh more
    than `waste` in it. It may hold `least` items in any case."""

    long: float
    waste: float
    least: int = 1


UNBOUNDED = Bounds(math.inf, 1.0)


@dataclass(slots=True)
class Line:
    """Least squares of seconds = fixed + each x size, older batches weighing less."""

    weight: float = 0.0
    size: float = 0.0
    seconds: float = 0.0
    size_size: float = 0.0
    size_seconds: float = 0.0
    ratio: float | None = None
    """Of the fixed part to that of an item, where it was measured: batches of nearly one size do not show it."""

    def note(self, size: int, seconds: float) -> None:
        new = FIRST if self.weight == 0 else 1.0
        for name, value in (
            ("weight", 1.0), ("size", size), ("seconds", seconds), ("size_size", size * size),
            ("size_seconds", size * seconds),
        ):  # fmt: skip
            setattr(self, name, KEPT * getattr(self, name) + new * value)

    def at(self, size: int) -> float:
        """Expected seconds; never less than nothing, and in proportion where only one size was seen."""
        fixed, each = self.parts()
        return fixed + each * size

    def parts(self) -> tuple[float, float]:
        """Seconds that any batch takes, and those of each item."""
        if not self.weight or not self.size:
            return 0.0, 0.0
        mean_size, mean_seconds = self.size / self.weight, self.seconds / self.weight
        if self.ratio is not None:
            each = mean_seconds / (self.ratio + mean_size)
            return self.ratio * each, each
        spread = self.size_size / self.weight - mean_size**2
        if spread < 1e-6:
            return 0.0, mean_seconds / mean_size
        each = (self.size_seconds / self.weight - mean_size * mean_seconds) / spread
        each = min(max(each, 0.0), mean_seconds / mean_size)
        return mean_seconds - each * mean_size, each


class BatchCosts(Generic[Key]):
    """Written by the device thread, read by others."""

    def __init__(self) -> None:
        self._lines: dict[Key, Line] = {}

    def note(self, kind: Key, size: int, seconds: float) -> None:
        self._lines.setdefault(kind, Line()).note(size, seconds)

    def measured(self, kind: Key, alone: float, several: float, count: int) -> None:
        """Seconds of a batch of one and of one of `count`, before there is any work. What is kept is their relation,
        which holds on a busier machine too."""
        each = (several - alone) / (count - 1)
        self._lines.setdefault(kind, Line()).ratio = max(0.0, alone / each - 1) if each > 0 else None

    def batch(self, kind: Key, size: int) -> float:
        """Expected seconds of one batch; 0 for a kind that was never run."""
        line = self._lines.get(kind)
        return line.at(size) if line is not None and size else 0.0

    def drain(self, kind: Key, waiting: int, most: int) -> float:
        """Expected seconds until so many are through, `most` at a time."""
        whole, rest = divmod(waiting, most)
        return whole * self.batch(kind, most) + self.batch(kind, rest)

    def worthwhile(self, kind: Key, most: int, bounds: Bounds) -> int:
        """The largest batch within the bounds; at most `most`."""
        line = self._lines.get(kind)
        fixed, each = (0.0, 0.0) if line is None else line.parts()
        if fixed + each * most <= bounds.long or each == 0.0:
            return most
        worth = max(int((bounds.long - fixed) / each), int((1 / bounds.waste - 1) * fixed / each))
        return min(most, max(1, bounds.least, worth))
