"""Counts the requests being worked on; one too many is refused before its body is read."""

from __future__ import annotations

from collections import Counter

from service.compute.fair_shares import has_place
from service.errors import Overloaded
from service.security.callers import current_caller
from service.telemetry.metrics import Metrics


class Admission:
    """A context manager around a request, entered and left in its context. One client alone may take all of
    `max_in_flight`; with others each leaves some to them."""

    def __init__(self, max_in_flight: int, metrics: Metrics) -> None:
        self.max_in_flight = max_in_flight
        self.metrics = metrics
        self._clients: Counter[str] = Counter()

    @property
    def running(self) -> int:
        return self._clients.total()

    def check(self) -> None:
        """Raises `Overloaded` when there is no place for one more of this client."""
        held, running = self._clients[current_caller.get().id], self.running
        if not has_place(1, held=held, total=running, most=self.max_in_flight):
            raise Overloaded(f"{running} requests are being worked on ({held} of this client)", reason="in_flight")

    def __enter__(self) -> None:
        self.check()
        self._clients[current_caller.get().id] += 1

    def __exit__(self, *_: object) -> None:
        client = current_caller.get().id
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
