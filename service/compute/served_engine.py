"""What the service asks of an engine beside its work: starting, stopping, telling how it is. Satisfied by the engine of
this process and by one that hands its work to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from adapters.base import ClassState
from adapters.clip import Backbone
from service.compute.engine import Engine, Timing
from service.settings import Settings
from service.telemetry.metrics import Metrics, Queues
from service.telemetry.tracing import Tracing


class Line(Queues, Protocol):
    """What waits for the device."""

    @property
    def thread_alive(self) -> bool:
        """Whether the device thread still runs, also after `stop` lost its patience with it."""
        ...

    @property
    def given_up(self) -> bool:
        """Whether the device thread died too often to be started again."""
        ...


class ServedEngine(Engine, Protocol):
    @property
    def batcher(self) -> Line: ...

    def start(self) -> None: ...

    async def stop(self, *, timeout: float = 10.0) -> None:
        """Answers everyone."""
        ...

    async def probe(self) -> Timing:
        """Sends one blank image through a device. Raises `ServiceError` when that cannot be done."""
        ...

    def place(self, state: ClassState) -> ClassState:
        """The state, ready for scoring."""
        ...

    def heartbeat_age(self) -> float:
        """Seconds since the device last got on with its work; 0 while it has none."""
        ...


OpenEngine = Callable[[Settings, Backbone, Metrics, Tracing], ServedEngine]
