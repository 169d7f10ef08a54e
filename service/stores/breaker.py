"""The door in front of a server that may be down: shut at once after some failures, opened a crack to ask again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Breaker:
    """Refuses at once for `cooldown` seconds after `failures` failures in a row, then lets one caller probe."""

    def __init__(
        self,
        *,
        failures: int = 3,
        cooldown: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[bool], None] | None = None,
    ) -> None:
        """`changed` hears whether the server is thought to be up, whenever that becomes known or changes."""
        self._limit = failures
        self._cooldown = cooldown
        self._clock = clock
        self._changed = changed
        self._up: bool | None = None
        self._failures = 0
        self._refuse_until = 0.0

    def admit(self) -> bool:
        now = self._clock()
        if self._failures < self._limit:
            return True
        if now < self._refuse_until:
            return False
        # The probe holds the door for one more cool-down, so that the others do not all wait for its time-out.
        self._refuse_until = now + self._cooldown
        return True

    def succeeded(self) -> None:
        if self._failures >= self._limit:
            _log.warning("Redis answers again")
        self._failures = 0
        self._tell(True)

    def failed(self, reason: object) -> None:
        self._failures += 1
        self._refuse_until = self._clock() + self._cooldown
        if self._failures == self._limit:
            _log.warning("Redis is unreachable: %s; asked once in %g s from now on", reason, self._cooldown)
        if self._failures >= self._limit:
            self._tell(False)

    def _tell(self, up: bool) -> None:
        if up != self._up:
            self._up = up
            if self._changed is not None:
                self._changed(up)
