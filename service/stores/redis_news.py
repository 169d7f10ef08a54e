"""News of leases by pub/sub: one connection of this process, opened when somebody first waits. A hint, never a promise:
who waits asks the server from time to time all the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from redis.exceptions import RedisClusterException, RedisError

from service.stores.redis import RedisServer
from service.stores.turns import Wait

_log = logging.getLogger(__name__)

_RETRY = 1.0
_LISTEN = 0.2
"""Seconds after which a channel that was added while the reader listened is surely heard."""

_LOST = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)


class RedisNews:
    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._waiting: dict[str, set[asyncio.Queue[bytes]]] = {}
        self._reader: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, channel: str) -> AsyncIterator[Wait]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting.setdefault(channel, set()).add(queue)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._read(), name="redis news")
        try:
            yield lambda seconds: _next(queue, seconds)
        finally:
            self._waiting[channel].discard(queue)
            if not self._waiting[channel]:
                del self._waiting[channel]

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _read(self) -> None:
        """Runs while anybody waits."""
        while self._waiting:
            listener = self._server.pubsub()
            try:
                await self._listen(listener)
            except _LOST as error:
                _log.debug("news of leases are not heard: %s", error)
                await asyncio.sleep(_RETRY)
            finally:
                with suppress(*_LOST):
                    await listener.aclose()

    async def _listen(self, listener: Any) -> None:
        heard: set[str] = set()
        while self._waiting:
            wanted = set(self._waiting)
            if wanted - heard:
                await listener.subscribe(*(wanted - heard))
            if heard - wanted:
                await listener.unsubscribe(*(heard - wanted))
            heard = wanted
            message = await listener.get_message(timeout=_LISTEN)
            if message is not None and message["type"] == "message":
                for queue in self._waiting.get(message["channel"].decode(), ()):
                    queue.put_nowait(message["data"])


async def _next(queue: asyncio.Queue[bytes], seconds: float) -> float | None:
    """Of several news only the last counts."""
    news = None
    with anyio.move_on_after(seconds):
        news = await queue.get()
    while not queue.empty():
        news = queue.get_nowait()
    try:
        return None if news is None else float(news)
    except ValueError:
        return None
