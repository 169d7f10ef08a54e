"""Where bytes are kept: one Protocol, one file per backend, and the choice between them. Nothing here knows what the
bytes mean.

Label-set records go straight to the durable backend (an SQLite file, or Redis when a URL is set). Class states are a
cache: memory in front of the same backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from service.errors import StoreError
from service.stores.memory import MemoryStore
from service.stores.redis import RedisStore, open_redis
from service.stores.redis_client import RedisAccess
from service.stores.redis_leases import RedisLeases
from service.stores.sqlite import SqliteFile
from service.stores.tiered import Observe, TieredStore
from service.stores.turns import Turns

__all__ = ["Observe", "Store", "Stores", "StoresConfig", "Watch", "open_stores"]

_NEVER = 100 * 365 * 86400


class Store(Protocol):
    """Bytes by key. Keys are Unicode text, not empty; every method raises `StoreError` when it could not find out."""

    async def get(self, key: str) -> bytes | None:
        """None means that the key is not there, never that the store is broken."""
        ...

    async def put(self, key: str, value: bytes) -> None:
        """Whole and as durable as the store is once it returns. Idempotent."""
        ...

    async def delete(self, key: str) -> bool:
        """Whether there was something to delete."""
        ...

    async def keys(self, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        """Up to `limit` keys that start with `prefix` and sort behind `after`, in code-point order. A listed key may
        be gone by the time it is asked for."""
        ...

    async def close(self) -> None:
        """Idempotent. Every later call but this one raises `StoreError`."""
        ...


class StoresConfig(Protocol):
    """The settings that this package reads."""

    @property
    def data_dir(self) -> Path: ...
    @property
    def redis_url(self) -> SecretStr | None: ...
    @property
    def redis_prefix(self) -> str: ...
    @property
    def redis_timeout(self) -> float: ...
    @property
    def redis_ca_file(self) -> Path | None: ...
    @property
    def redis_cert_file(self) -> Path | None: ...
    @property
    def redis_key_file(self) -> Path | None: ...
    @property
    def redis_sentinel_password(self) -> SecretStr | None: ...
    @property
    def lease_seconds(self) -> float: ...
    @property
    def state_ttl_seconds(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Watch:
    """Who wants to hear of a shared backend: whether it is `up`, of each `trouble` (unreachable, refused, skipped),
    and of each turn that was `lost` (taken, revoked, fenced)."""

    up: Callable[[bool], None] = lambda up: None
    trouble: Callable[[str], None] = lambda kind: None
    lost: Callable[[str], None] = lambda reason: None


@dataclass(frozen=True, slots=True)
class Stores:
    """`records` hold the truth, `states` what can be computed again. `backend` is "sqlite" or "redis". `turns` is there
    when other processes may share the backend, and `cache`: for more that can be computed again, straight to it."""

    records: Store
    states: Store
    backend: str
    turns: Turns | None = None
    cache: Store | None = None

    async def problem(self) -> str | None:
        """Why the durable backend cannot answer just now, or None. Cheap: at most one short look-up."""
        try:
            await self.records.get("health")
        except StoreError as error:
            return error.detail
        return None

    async def close(self) -> None:
        try:
            if isinstance(self.turns, RedisLeases):
                await self.turns.close()
            await self.states.close()
        finally:
            await self.records.close()


def open_stores(settings: StoresConfig, *, observe: Observe | None = None, watch: Watch | None = None) -> Stores:
    """Blocks while an SQLite file is opened and checked. A Redis that is down is no error here: it may come back.

    Raises `StoreError` when the file under `data_dir` cannot be used, and names it. `observe(tier, result)` hears of
    every look-up of a class state: result is hit, miss or error.
    """
    memory = MemoryStore(settings.memory_bytes)
    if settings.redis_url is None:
        records, durable = _open_sqlite(settings)
        return Stores(records, TieredStore({"memory": memory, "sqlite": durable}, observe=observe), "sqlite")
    watch = watch or Watch()
    server = open_redis(access_of(settings), count=watch.trouble, changed=watch.up)
    prefix, ttl = settings.redis_prefix, settings.state_ttl_seconds or _NEVER
    states = TieredStore({"memory": memory, "redis": RedisStore(server, prefix, ttl=ttl)}, observe=observe)
    turns = RedisLeases(server, prefix, ttl=ttl, seconds=settings.lease_seconds, near=memory.put, lost=watch.lost)
    return Stores(RedisStore(server, prefix), states, "redis", turns, RedisStore(server, prefix, ttl=ttl))


def access_of(settings: StoresConfig) -> RedisAccess:
    assert settings.redis_url is not None
    sentinel = settings.redis_sentinel_password
    return RedisAccess(
        settings.redis_url.get_secret_value(),
        timeout=settings.redis_timeout,
        ca_file=settings.redis_ca_file,
        cert_file=settings.redis_cert_file,
        key_file=settings.redis_key_file,
        sentinel_password=None if sentinel is None else sentinel.get_secret_value(),
    )


def _open_sqlite(settings: StoresConfig) -> tuple[Store, Store]:
    file = SqliteFile(settings.data_dir / "selftpt.sqlite3")
    return file.store("records"), file.store("states", ttl=settings.state_ttl_seconds or _NEVER)
