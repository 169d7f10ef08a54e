"""The shared durable backend: Redis 6.2 or later, Valkey, or what speaks their protocol.

A slow or dead server costs each caller a short time-out at first and nothing once the breaker has opened.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import islice

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import StoreError

_log = logging.getLogger(__name__)

_CONNECTIONS = 16
_POOL_WAIT = 4
"""How many time-outs a caller may wait for a free connection: a burst is no outage."""


class Breaker:
    """Refuses at once for `cooldown` seconds after `failures` failures in a row, then lets one caller probe."""

    def __init__(
        self, *, failures: int = 3, cooldown: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._cooldown = cooldown
        self._clock = clock
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

    def failed(self, reason: object) -> None:
        self._failures += 1
        self._refuse_until = self._clock() + self._cooldown
        if self._failures == self._limit:
            _log.warning("Redis is unreachable: %s; asked once in %g s from now on", reason, self._cooldown)


class RedisServer:
    """A client and the breaker in front of it, shared by the stores on one server."""

    def __init__(self, client: Redis, breaker: Breaker | None = None) -> None:
        self._client = client
        self._breaker = breaker or Breaker()
        self._closed = False

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Redis]:
        """Translates every failure to `StoreError`. Only an unreachable server counts for the breaker: one that
        answers "no" (out of memory, read only) is up."""
        if self._closed:
            raise StoreError("the Redis store is closed")
        if not self._breaker.admit():
            raise StoreError("Redis did not answer lately; it is asked again in a moment")
        try:
            yield self._client
        except (RedisConnectionError, RedisTimeoutError, asyncio.TimeoutError, OSError) as error:
            self._breaker.failed(error)
            # Clients read this text, so the address stays in the cause and the log.
            raise StoreError("Redis is unreachable") from error
        except RedisError as error:
            self._breaker.succeeded()
            raise StoreError(f"Redis refused: {error}") from error
        self._breaker.succeeded()

    async def close(self) -> None:
        # The client would connect again when asked, hence the flag.
        self._closed = True
        with suppress(RedisError, OSError):
            await self._client.aclose(close_connection_pool=True)


def open_redis(url: str, *, timeout: float) -> RedisServer:
    """No connection is made yet. Raises `StoreError` when the URL (redis, rediss or unix) makes no sense."""
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout * _POOL_WAIT,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(ExponentialWithJitterBackoff(base=0.005, cap=0.05), retries=1),
            # No health checks: against a server that accepts but does not answer, redis-py 8.1 checks while it connects
            # while it checks, without end. A dead connection shows at the next command, which is tried twice.
            health_check_interval=0,
            decode_responses=False,
        )
    except ValueError as error:
        raise StoreError(f"the Redis URL cannot be used: {error}") from error
    return RedisServer(Redis.from_pool(pool))


class RedisStore:
    """Without `ttl`: entries stay, and an index makes them listable in order. With `ttl` (seconds): entries leave when
    nobody asked for them in that long, and listing them scans the server.

    Entry and index change in one transaction. Their keys share one hash tag, hence one slot of a cluster; entries with
    a `ttl` are spread over all slots.
    """

    def __init__(self, server: RedisServer, prefix: str, *, ttl: float | None = None) -> None:
        self._server = server
        self._space = f"{{{prefix}}}:" if ttl is None else f"{prefix}:"
        # No entry can have this name: theirs go on with a colon.
        self._index = f"{{{prefix}}}index"
        self._ttl_ms = None if ttl is None else max(1, int(ttl * 1000))

    async def get(self, key: str) -> bytes | None:
        name = self._space + key
        async with self._server.session() as client:
            value = await (client.get(name) if self._ttl_ms is None else client.getex(name, px=self._ttl_ms))
        return None if value is None else _raw(value)

    async def put(self, key: str, value: bytes) -> None:
        name = self._space + key
        async with self._server.session() as client:
            if self._ttl_ms is not None:
                await client.set(name, value, px=self._ttl_ms)
                return
            async with client.pipeline(transaction=True) as pipe:
                pipe.set(name, value)
                pipe.zadd(self._index, {key: 0})
                await pipe.execute()

    async def delete(self, key: str) -> bool:
        name = self._space + key
        async with self._server.session() as client:
            if self._ttl_ms is not None:
                return bool(await client.unlink(name))
            async with client.pipeline(transaction=True) as pipe:
                pipe.unlink(name)
                pipe.zrem(self._index, key)
                removed, _ = await pipe.execute()
        return bool(removed)

    async def keys(self, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        if self._ttl_ms is not None:
            return await self._scan(prefix, after=after, limit=limit)
        low = b"(" + after.encode() if after >= prefix and after else b"[" + prefix.encode()
        async with self._server.session() as client:
            # 0xFF sorts behind every byte of UTF-8, so the range ends exactly where the prefix does.
            found = await client.zrangebylex(self._index, low, b"(" + prefix.encode() + b"\xff", start=0, num=limit)
        return [_raw(key).decode() for key in found]

    async def close(self) -> None:
        """Closes the connections for every store on this server."""
        await self._server.close()

    async def _scan(self, prefix: str, *, after: str, limit: int) -> list[str]:
        pattern = "".join(f"\\{char}" if char in "*?[]\\^" else char for char in self._space + prefix)
        async with self._server.session() as client:
            names = [_raw(name).decode() async for name in client.scan_iter(match=f"{pattern}*", count=1000)]
        keys = {name[len(self._space) :] for name in names}
        return list(islice(sorted(key for key in keys if key > after), limit))


def _raw(value: bytes | str) -> bytes:
    """The client's types allow for decoded answers; this one never decodes."""
    assert isinstance(value, bytes)
    return value
