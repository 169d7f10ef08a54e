"""The shared durable backend: Redis 6.2 or later, Valkey, or what speaks their protocol.

A slow or dead server costs each caller a short time-out at first and nothing once the breaker has opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ClusterError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import StoreError
from service.stores.breaker import Breaker
from service.stores.redis_client import CONNECTIONS, Client, RedisAccess, close_client, open_client

Count = Callable[[str], None]
"""Called with what went wrong: unreachable, refused, or skipped (the breaker was open)."""

_UNREACHABLE = (
    RedisConnectionError,
    RedisTimeoutError,
    RedisClusterException,
    ClusterError,
    asyncio.TimeoutError,
    OSError,
)


class RedisServer:
    """A client and the breaker in front of it, shared by the stores on one server or cluster."""

    def __init__(self, client: Client, breaker: Breaker | None = None, *, count: Count | None = None) -> None:
        self._client = client
        self._breaker = breaker or Breaker()
        self._count = count or _uncounted
        self._closed = False
        self._room = asyncio.Semaphore(CONNECTIONS)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Redis]:
        """Translates every failure to `StoreError`. Only an unreachable server counts for the breaker: one that
        answers "no" (out of memory, read only) is up. A burst waits its turn: it is no outage."""
        async with self._room, self._guarded() as client:
            yield client

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[Redis]:
        if self._closed:
            raise StoreError("the Redis store is closed")
        if not self._breaker.admit():
            self._count("skipped")
            raise StoreError("Redis did not answer lately; it is asked again in a moment")
        try:
            yield cast(Redis, self._client)  # a cluster's client has the same commands
        except _UNREACHABLE as error:
            self._breaker.failed(error)
            self._count("unreachable")
            # Clients read this text, so the address stays in the cause and the log.
            raise StoreError("Redis is unreachable") from error
        except RedisError as error:
            self._breaker.succeeded()
            self._count("refused")
            raise StoreError(f"Redis refused: {error}") from error
        self._breaker.succeeded()

    def pubsub(self) -> Any:
        """A connection of its own that listens to channels; it does not pass the breaker."""
        return self._client.pubsub(ignore_subscribe_messages=True)

    async def close(self) -> None:
        # The client would connect again when asked, hence the flag.
        self._closed = True
        with suppress(RedisError, RedisClusterException, OSError):
            await close_client(self._client)


def open_redis(
    access: RedisAccess, *, count: Count | None = None, changed: Callable[[bool], None] | None = None
) -> RedisServer:
    """No connection is made yet. Raises `StoreError` when the access makes no sense. `changed` hears when the server
    is found up or down."""
    return RedisServer(open_client(access), Breaker(changed=changed), count=count)


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
                # Not `pipe.unlink`: a cluster's pipeline would take that as a command on many keys, and not queue it.
                pipe.execute_command("UNLINK", name)
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


def _uncounted(kind: str) -> None:
    pass
