"""How much work was taken in and how fast such work gets done, so that what would come too late is refused at once."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.compute.fair_shares import share_ahead, uneven
from service.compute.work_queue import Asker
from service.errors import Overloaded

WINDOW = 2.0
"""Busy seconds that the pace is taken over, at least."""

ENOUGH = 32
"""Images that the pace is taken over, at least."""

APART = 0.05
"""Busy seconds between two marks."""

SURE = 0.5
"""The part of its time by which a request must be expected to be done. Estimates err, and what is given up half-way has
cost as much as an answer; a queue half as long keeps the device as busy."""


class Pace:
    """Images a second of late. Only busy time counts: an idle hour says nothing about speed."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        self._done = 0.0

    def guess(self, seconds: float) -> None:
        """What an image is expected to take before there was real work. It counts until there is enough of that, and as
        much as that: or a first crowd, of which nothing is done yet, would look like a device that stands still."""
        self._marks = deque([(-ENOUGH * seconds, -float(ENOUGH))])

    def did(self, count: float, busy: float) -> None:
        """`busy`: all busy seconds so far."""
        self._done += count
        if busy - self._marks[-1][0] >= APART:
            self._marks.append((busy, self._done))
        while len(self._marks) > 1 and self._far_enough(self._marks[1], busy):
            self._marks.popleft()

    def per_second(self, busy: float) -> float | None:
        """None while nothing is known."""
        since, before = self._marks[0]
        if self._done <= before or busy <= since:
            return None
        return (self._done - before) / (busy - since)

    def _far_enough(self, mark: tuple[float, float], busy: float) -> bool:
        return busy - mark[0] >= WINDOW and self._done - mark[1] >= ENOUGH


class Backlog:
    """Images that are decoded, wait for the device, or are on it, by client. Waiting time is expected by Little's law:
    those that go first, over those done in a second. Used on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.pace = Pace()
        self._clock = clock
        self._clients: Counter[str] = Counter()
        self._busy_before = 0.0
        self._busy_since = 0.0
        self._uneven, self._last_uneven = False, -math.inf

    @property
    def images(self) -> int:
        return self._clients.total()

    @property
    def busy(self) -> float:
        """Seconds in which there was work, so far."""
        return self._busy_before + (self._clock() - self._busy_since if self._clients else 0.0)

    @property
    def clients(self) -> int:
        """That have images under way."""
        return len(self._clients)

    @property
    def uneven(self) -> bool:
        """Whether a client has few images under way beside others' many."""
        return self._uneven

    @property
    def evened(self) -> float:
        """Seconds since that was so; infinite if it never was."""
        return self._clock() - self._last_uneven

    def check(self, count: int, asker: Asker) -> None:
        """Raises `Overloaded` when `count` more images would hardly be done in the asker's time. With nothing before
        them they may try, however slow it is."""
        total, pace = self.images, self.pace.per_second(self.busy)
        if not total or pace is None:
            return
        left = asker.until - self._clock()
        expected = (share_ahead(self._clients, asker.client, count) * total + count) / pace
        if expected > SURE * left:
            detail = f"{total} images go first: the answer could come later than in the {max(left, 0.0):.1f} s given"
            raise Overloaded(detail, retry_after=expected - SURE * left, reason="deadline")

    @contextmanager
    def claim(self, count: int, client: str) -> Iterator[None]:
        """Around the work on `count` images. What is given up was not done, and has taken its time."""
        self._begin(count, client)
        try:
            yield
            self.pace.did(count, self.busy)
        finally:
            self._end(count, client)

    def _begin(self, count: int, client: str) -> None:
        if not self._clients:
            self._busy_since = self._clock()
        self._clients[client] += count
        self._look()

    def _end(self, count: int, client: str) -> None:
        busy = self.busy
        self._clients[client] -= count
        if self._clients[client] <= 0:
            del self._clients[client]
        if not self._clients:
            self._busy_before = busy
        self._look()

    def _look(self) -> None:
        """Kept, since the device thread asks."""
        self._uneven = uneven(self._clients)
        if self._uneven:
            self._last_uneven = self._clock()
