"""The workers as a Ray Serve deployment handle reaches them. Orders can be repeated, so when a worker dies another one
gets the order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from ray.exceptions import ObjectLostError, RayActorError, TaskCancelledError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from service.cluster.orders import AdaptOrder, BatchAnswer, BatchOrder, Refusal
from service.compute.engine import Timing
from service.errors import DeviceDead, Overloaded
from service.stores.turns import Failed
from service.telemetry.gathering import Report

_log = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 6
PAUSE = 0.2
"""Seconds before the second try; twice as long before each further one."""

REPORT_SECONDS = 5.0
"""What a scrape allows; Prometheus itself waits for 10 s unless it is told otherwise."""

GONE = (
    RayActorError,
    WorkerCrashedError,
    ObjectLostError,
    TaskCancelledError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
"""The worker died, or is being replaced, before it answered."""


class RayWorkers:
    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def classify(self, order: BatchOrder) -> BatchAnswer:
        return await _retried(lambda: self._handle.classify.remote(order))

    async def probe(self) -> Timing:
        return await _retried(self._handle.probe.remote)

    async def adapt(self, order: AdaptOrder) -> AsyncIterator[float | bytes | Failed | Refusal]:
        for attempt in range(TRIES):
            answers: Any = self._handle.options(stream=True).adapt.remote(order)
            try:
                async for answer in answers:
                    yield answer
                return
            except GONE as error:
                _log.warning("a worker was lost during an adaptation", extra={"error": type(error).__name__})
                await asyncio.sleep(PAUSE * 2**attempt)
            finally:
                answers.cancel()  # does nothing to one that is through
        raise DeviceDead("no worker is left")


async def _retried(call: Callable[[], Awaitable[T]]) -> T:
    for attempt in range(TRIES):
        try:
            return await call()
        except BackPressureError as error:
            raise Overloaded("the workers' queues are full") from error
        except GONE as error:
            _log.warning("a worker was lost", extra={"error": type(error).__name__})
            await asyncio.sleep(PAUSE * 2**attempt)
    raise DeviceDead("no worker is left")


async def reports_of(handle: DeploymentHandle[Any]) -> list[Report]:
    """Of all replicas. Ray waits for all or for none: while one of them hangs (Ray replaces it), none is heard."""
    try:
        answers = await handle.broadcast("report").results_async(timeout_s=REPORT_SECONDS, return_exceptions=True)
    except (*GONE, TimeoutError) as error:
        _log.warning("replicas did not tell their metrics", extra={"error": type(error).__name__})
        return []
    return [one for one in answers if isinstance(one, Report)]
