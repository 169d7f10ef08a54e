"""The thread that owns the device. When it dies it is started again: a few times, each after a longer pause."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each new start. One death more within `FORGIVEN_AFTER`, and it stays dead."""

FORGIVEN_AFTER = 600.0
"""Seconds after which a death no longer counts."""


class DeviceThread:
    """`live` returns when there shall be no more work; whatever it raises is a death. `died` is then called on the
    thread, after `alive` became false, so that who asks `alive` after queueing work never waits in vain."""

    def __init__(
        self,
        live: Callable[[], None],
        *,
        died: Callable[[], None],
        restarted: Callable[[], None] = lambda: None,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._live = live
        self._died = died
        self._restarted = restarted
        self._pauses = pauses
        self._deaths: deque[float] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._next_start: asyncio.TimerHandle | None = None
        self._stopping = False
        self._ended = threading.Event()
        self.alive = False
        """Whether it takes work."""
        self.given_up = False
        """Whether it died too often to be started again: only a new process helps."""

    @property
    def running(self) -> bool:
        """Whether the thread exists, be it that it takes no more work."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begin()

    def stop(self) -> None:
        """It is not started again; `live` is told by other means."""
        self._stopping = True
        if self._next_start is not None:
            self._next_start.cancel()

    async def ended(self, timeout: float) -> None:
        """Returns when the thread has ended, or after `timeout` seconds."""
        if self.running:
            await asyncio.to_thread(self._ended.wait, timeout)

    def _begin(self) -> None:
        self._ended.clear()
        self.alive = True
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._live()
        except BaseException:  # thread edge: also of a SystemExit, which ends a thread without a word
            if not self._stopping:
                _log.critical("the device thread died", exc_info=True)
        finally:
            self.alive = False
            self._died()
            self._tell_loop()
            self._ended.set()

    def _tell_loop(self) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._plan)
        except RuntimeError:
            _log.warning("the event loop closed before the device thread ended")

    def _plan(self) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        while self._deaths and now - self._deaths[0] > FORGIVEN_AFTER:
            self._deaths.popleft()
        if len(self._deaths) >= len(self._pauses):
            self.given_up = True
            _log.critical("the device thread is not started again", extra={"deaths": len(self._deaths) + 1})
            return
        pause = self._pauses[len(self._deaths)]
        self._deaths.append(now)
        assert self._loop is not None
        self._next_start = self._loop.call_later(pause, self._begin_again)

    def _begin_again(self) -> None:
        self._begin()
        self._restarted()
        _log.warning("the device thread was started again", extra={"deaths": len(self._deaths)})
