"""Where the rest of the service tells of spans, and what listens when nobody traces. OpenTelemetry is in `otel.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""W3C Trace Context; versions after 00 may append fields."""


class BatchTiming(Protocol):
    """What is told of one batch of the device: seconds, and its beginning by `time.perf_counter()`."""

    @property
    def batch(self) -> float: ...
    @property
    def forward(self) -> float: ...
    @property
    def head(self) -> float: ...
    @property
    def size(self) -> int: ...
    @property
    def began(self) -> float: ...


class RequestTrace(Protocol):
    """One request. `answer` is the `traceparent` that its answer carries; `None` where it is not traced."""

    @property
    def trace_id(self) -> str | None: ...
    @property
    def answer(self) -> str | None: ...

    def end(self, route: str, status: int, caller: Mapping[str, str]) -> None:
        """`caller`: what is known of who asked, by name. Must be called in the context in which the request began."""
        ...


class Tracing(Protocol):
    """Handles are opaque: what `here` and `batch` give is only handed back."""

    def begin(self, method: str, traceparent: str, tracestate: str = "") -> RequestTrace:
        """Everything that runs in this context from now on belongs to the request."""
        ...

    def here(self) -> object:
        """The request that runs in this context, to be told to `batch`."""
        ...

    def stage(self, name: str, seconds: float, ended: float) -> None:
        """A part of the request, which ended at `ended` (`time.perf_counter()`)."""
        ...

    def batch(self, timing: BatchTiming, callers: Sequence[object]) -> object:
        """A batch of the device, linked to the requests it served. Called on the device thread."""
        ...

    def joined(self, batch: object) -> None:
        """Links the request to a batch that carried one of its images."""
        ...

    def adaptation(self, key: str, adapter: str, classes: int) -> AbstractContextManager[object]:
        """The making of one class state, linked to the request that caused it."""
        ...

    def served(self, key: str) -> None:
        """Links the request to the adaptation that made its class state, if that happened in this process."""
        ...

    def close(self) -> None:
        """Hands over what was not exported yet. Blocks for a few seconds at most."""
        ...


@dataclass(frozen=True, slots=True)
class Unseen:
    """A request that is not traced here; its caller's trace is named in the logs all the same."""

    trace_id: str | None = None
    answer: str | None = None

    def end(self, route: str, status: int, caller: Mapping[str, str]) -> None:
        pass


UNSEEN = Unseen()


class Untraced:
    """Tracing is off."""

    def begin(self, method: str, traceparent: str, tracestate: str = "") -> RequestTrace:
        found = TRACEPARENT.fullmatch(traceparent) if traceparent else None
        return Unseen(found[1]) if found else UNSEEN

    def here(self) -> object:
        return None

    def stage(self, name: str, seconds: float, ended: float) -> None:
        pass

    def batch(self, timing: BatchTiming, callers: Sequence[object]) -> object:
        return None

    def joined(self, batch: object) -> None:
        pass

    def adaptation(self, key: str, adapter: str, classes: int) -> AbstractContextManager[object]:
        return nullcontext()

    def served(self, key: str) -> None:
        pass

    def close(self) -> None:
        pass
