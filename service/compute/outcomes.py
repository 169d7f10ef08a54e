"""What becomes of work: tried once, and told to those who wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def attempt(call: Callable[[], T]) -> T | Exception:
    try:
        return call()
    except Exception as error:  # loop edge: whatever a batch or job raises ends with it, and the thread goes on
        return error


def settle(works: Sequence[Any], reason: Callable[[], Exception]) -> None:
    for work in works:
        work.settle(reason())


def settle_each(outcomes: Sequence[tuple[Any, Any]]) -> None:
    for work, outcome in outcomes:
        work.settle(outcome)
