"""Turns among processes that share a Redis: a renewed lease with a fence. See `lease_scripts` for the steps.

Lease and fence live in the slot of the value they are about: their hash tag is the value's whole name.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio

from service.errors import StoreError
from service.stores import lease_scripts as scripts
from service.stores.redis import RedisServer
from service.stores.redis_news import RedisNews
from service.stores.turns import Failed, Turn, Wait

_log = logging.getLogger(__name__)

Lost = Callable[[str], None]
"""Called when a turn was lost: taken (it ran out), revoked, or fenced (noticed only when the value was refused)."""

_FENCE_MS = 7 * 86_400_000
_PROGRESS_EVERY = 0.2
_RENEWALS = 3
"""Renewals in the life of a lease: two may go wrong."""

_FAILURE_SECONDS = 5.0
"""So long a failure holds for the other processes; as long as a process itself waits before its first new try."""


@dataclass(frozen=True, slots=True)
class Names:
    value: str
    lease: str
    fence: str

    @property
    def keys(self) -> tuple[str, str, str]:
        return self.value, self.lease, self.fence


class RedisLeases:
    """`near` gets a copy of what is kept, e.g. the memory tier in front of Redis."""

    def __init__(
        self,
        server: RedisServer,
        prefix: str,
        *,
        ttl: float,
        seconds: float = 5.0,
        near: Callable[[str, bytes], Any] | None = None,
        lost: Lost | None = None,
    ) -> None:
        """`ttl`: seconds a value stays unused. `seconds`: life of a lease whose holder went silent."""
        self.server = server
        self.near = near
        self.lost = lost or (lambda reason: None)
        self.seconds = seconds
        self.value_ms = max(1, int(ttl * 1000))
        self._prefix = prefix
        self._news = RedisNews(server)

    @property
    def lease_ms(self) -> int:
        return max(1, int(self.seconds * 1000))

    async def take(self, key: str, *, waited: bool = False) -> Turn:
        names = self._names(key)
        async with self.server.session() as client:
            told = await scripts.TAKE.run(client, names.keys, self.lease_ms, _FENCE_MS, int(waited))
        if told[0] == b"ours":
            return Turn("ours", RedisClaim(self, key, names, told[1].decode()))
        return _told(told) or Turn("theirs")

    async def look(self, key: str) -> Turn | None:
        async with self.server.session() as client:
            return _told(await scripts.LOOK.run(client, self._names(key).keys[:2]))

    def news(self, key: str) -> AbstractAsyncContextManager[Wait]:
        return self._news.of(self._names(key).lease)

    async def revoke(self, key: str) -> None:
        names = self._names(key)
        async with self.server.session() as client:
            await scripts.REVOKE.run(client, names.keys, self.lease_ms, _FENCE_MS, names.lease)

    async def close(self) -> None:
        await self._news.close()

    def _names(self, key: str) -> Names:
        value = f"{self._prefix}:{key}"
        assert not {"{", "}"} & set(value), "the name is a hash tag, so it can have no braces"
        return Names(value, f"{{{value}}}:lease", f"{{{value}}}:fence")


class RedisClaim:
    def __init__(self, leases: RedisLeases, key: str, names: Names, token: str) -> None:
        self._leases = leases
        self._key = key
        self._names = names
        self.token = token
        self._lost = False
        self._progress = 0.0
        self._told = asyncio.Event()

    def tell(self, fraction: float) -> None:
        self._progress = fraction
        self._told.set()

    @asynccontextmanager
    async def keep_alive(self, revoked: Callable[[], None]) -> AsyncIterator[None]:
        renewing = asyncio.get_running_loop().create_task(self._renew(revoked), name="lease")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def keep(self, value: bytes) -> bool:
        leases = self._leases
        if leases.near is not None:
            await leases.near(self._key, value)
        async with leases.server.session() as client:
            kept = await scripts.KEEP.run(
                client, self._names.keys, self.token, value, leases.value_ms, self._names.lease
            )
        if not kept and not self._lost:
            leases.lost("fenced")
        return bool(kept)

    async def fail(self, failed: Failed) -> None:
        await self._end(json.dumps([failed.kind, failed.text]))

    async def release(self) -> None:
        await self._end("")

    async def _end(self, failure: str) -> None:
        """A lease that cannot be ended runs out."""
        with suppress(StoreError):
            async with self._leases.server.session() as client:
                pause = int(_FAILURE_SECONDS * 1000)
                await scripts.END.run(client, self._names.keys, self.token, failure, pause, self._names.lease)

    async def _renew(self, revoked: Callable[[], None]) -> None:
        """An unreachable server is asked again: whether the turn was lost shows when the value is written."""
        while not self._lost:
            await asyncio.sleep(_PROGRESS_EVERY)
            with anyio.move_on_after(self._leases.seconds / _RENEWALS - _PROGRESS_EVERY):
                await self._told.wait()
            self._told.clear()
            try:
                answer = await self._renewed()
            except StoreError as error:
                _log.warning("a lease was not renewed", extra={"error": error.detail})
                continue
            if answer != "ours":
                self._lost = True
                self._leases.lost(answer)
                _log.warning("a lease was lost", extra={"key": self._key, "reason": answer})
            if answer == "revoked":
                revoked()

    async def _renewed(self) -> str:
        leases = self._leases
        async with leases.server.session() as client:
            answer: bytes = await scripts.RENEW.run(
                client, self._names.keys, self.token, leases.lease_ms, _FENCE_MS, f"{self._progress:.4f}",
                self._names.lease,
            )  # fmt: skip
        return answer.decode()


def _told(answer: list[Any]) -> Turn | None:
    """What LOOK and TAKE say of a turn that is not ours; None when nobody has it."""
    if answer[0] == b"stored":
        return Turn("stored")
    token, progress, failure, revoked = answer[1:]
    if token is None:
        return None
    if revoked is not None:
        return Turn("revoked")
    if failure is not None:
        kind, text = json.loads(failure)
        return Turn("failed", failed=Failed(kind, text))
    return Turn("theirs", progress=float(progress or 0.0))
