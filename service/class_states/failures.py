"""Which class states failed, and for how long they are not tried again."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from adapters.errors import AdapterError
from service.errors import ComputeError, DeadlineExceeded, OverBudget


@dataclass(frozen=True, slots=True)
class Failure:
    error: Exception
    until: float
    count: int


class Failures:
    """The next attempt waits `first` seconds, then twice as long after each failure, up to `longest`."""

    def __init__(self, *, first: float = 5.0, longest: float = 600.0, kept: int = 1024) -> None:
        self._first = first
        self._longest = longest
        self._kept = kept
        self._failures: OrderedDict[str, Failure] = OrderedDict()

    def last(self, key: str) -> Exception | None:
        failure = self._failures.get(key)
        return failure.error if failure else None

    def standing(self, key: str) -> Exception | None:
        """The failure because of which this key is not tried just now."""
        failure = self._failures.get(key)
        return failure.error if failure and time.monotonic() < failure.until else None

    def note(self, key: str, error: Exception) -> None:
        """Keeps what lies in the label set or the method; a full queue or a shutdown says nothing about a key."""
        if not isinstance(error, (AdapterError, ComputeError, DeadlineExceeded, OverBudget)):
            return
        former = self._failures.pop(key, None)
        count = former.count + 1 if former else 1
        pause = min(self._first * 2 ** (count - 1), self._longest)
        self._failures[key] = Failure(error, time.monotonic() + pause, count)
        while len(self._failures) > self._kept:
            self._failures.popitem(last=False)

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)
