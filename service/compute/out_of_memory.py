"""Whether a failure means that memory ran out, on any device; and how many images a batch may have after it did."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

CAREFUL_SECONDS = 60.0
"""How long batches stay small after memory ran out: what took it may be gone by then."""

SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""How torch on CUDA and on CPU, ONNX Runtime, OpenVINO and cuBLAS say it, in errors that have no class of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, (RuntimeError, OSError)) and any(sign.lower() in text for sign in SIGNS)


class BatchSizes(Generic[Key]):
    """The most items of a kind that go together: as configured, or half of what did not fit lately."""

    def __init__(self, most: Callable[[Key], int], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._caps: dict[Key, tuple[int, float]] = {}

    def __call__(self, key: Key) -> int:
        cap = self._caps.get(key)
        if cap is None or self._clock() > cap[1]:
            return self._most(key)
        return min(cap[0], self._most(key))

    def did_not_fit(self, key: Key, size: int) -> None:
        self._caps[key] = (max(1, size // 2), self._clock() + CAREFUL_SECONDS)
