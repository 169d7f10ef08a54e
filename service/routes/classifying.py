"""One classify request from its first byte to its encoded answer, whichever protocol it came in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fastapi import Request

from service.core import Core
from service.errors import ClientGone
from service.http.connection import while_connected
from service.images.inputs import Call
from service.runtime import Runtime

SHOWN_STAGES = ("receive", "resolve", "decode", "queue", "batch", "forward", "head", "total")


class Classifying:
    """Begins when it is made; then `admitted`, within it `receiving` and `answer`, then `encoding`, once each."""

    def __init__(self, request: Request, runtime: Runtime, core: Core) -> None:
        self._request = request
        self._runtime = runtime
        self._core = core
        self._began = time.perf_counter()
        self._stages: dict[str, float] = {}

    def admitted(self) -> AbstractContextManager[object]:
        """Refuses before the body is read when too much is under way."""
        return self._runtime.admission

    def receiving(self) -> AbstractContextManager[None]:
        """Around reading and understanding the body."""
        return self._runtime.metrics.stage("receive", self._stages)

    async def answer(self, call: Call, *, wait: float, patience: float | None = None) -> dict[str, Any]:
        """`patience`: seconds from the beginning after which the caller has no use for the answer. Raises the failure
        of an only image."""
        left = None if patience is None else max(0.0, patience - self._elapsed())
        work = self._core.classifier.classify(call, wait=wait, stages=self._stages, patience=left)
        try:
            outcome = await while_connected(self._request, work)
        except ClientGone:
            self._runtime.metrics.cancelled.inc()
            raise
        if outcome.failure is not None:
            raise outcome.failure
        return outcome.answer

    def shown(self) -> dict[str, float]:
        """Milliseconds by stage so far, as answers tell them."""
        so_far = {**self._stages, "total": self._elapsed()}
        return {stage: round(1000 * so_far[stage], 3) for stage in SHOWN_STAGES if stage in so_far}

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """The last stage, with which the whole request is measured."""
        with self._runtime.metrics.stage("encode", self._stages):
            yield
        self._runtime.metrics.record_stage("total", self._elapsed(), self._stages)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


def server_timing(milliseconds: dict[str, float]) -> dict[str, str]:
    """As a header field."""
    return {"Server-Timing": ", ".join(f"{stage};dur={duration:g}" for stage, duration in milliseconds.items())}
