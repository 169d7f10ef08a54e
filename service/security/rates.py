"""How much a key may ask for: token buckets in this process, and the header fields that tell callers about them.

Header fields as in draft-ietf-httpapi-ratelimit-headers-10 (`RateLimit-Policy`, `RateLimit`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from service.errors import RateExceeded

WINDOW = 60.0


class Meter:
    """A bucket of `quota` units that refills within a minute. A request that alone asks for more than the quota is let
    through when the bucket is full; what it took too much has to be refilled before the next."""

    def __init__(self, name: str, quota: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.quota = quota
        self._clock = clock
        self._level = float(quota)
        self._seen = clock()

    def take(self, count: int) -> None:
        """Raises `RateExceeded`, and then takes nothing."""
        level = self._refilled()
        if level < min(count, self.quota):
            missing = min(count, self.quota) - level
            raise RateExceeded(
                f"{count} {self.name} asked for, {max(0, math.floor(level))} of {self.quota} per minute are left",
                retry_after=missing * WINDOW / self.quota,
                reason=f"rate_{self.name.replace('-', '_')}",
                limit=self.name,
                allowed=self.quota,
            )
        self._level = level - count

    @property
    def left(self) -> int:
        return max(0, math.floor(self._refilled()))

    @property
    def full_in(self) -> int:
        """Seconds until the whole quota is there again."""
        return math.ceil((self.quota - self._refilled()) * WINDOW / self.quota)

    def _refilled(self) -> float:
        now = self._clock()
        self._level = min(float(self.quota), self._level + (now - self._seen) * self.quota / WINDOW)
        self._seen = now
        return self._level


def rate_headers(meters: Sequence[Meter]) -> dict[str, str]:
    if not meters:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{meter.name}";q={meter.quota};w={WINDOW:.0f}' for meter in meters),
        "RateLimit": ", ".join(f'"{meter.name}";r={meter.left};t={meter.full_in}' for meter in meters),
    }
