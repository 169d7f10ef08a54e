"""Where bytes are kept: one Protocol, one file per backend, and the choice between them. Nothing here knows what the
bytes mean.

Label-set records go straight to the durable backend (an SQLite file, or Redis when a URL is set). Class states are a
cache: memory in front of the same backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from service.errors import StoreError
from service.stores.memory import MemoryStore
from service.stores.redis import RedisStore, open_redis
from service.stores.sqlite import SqliteFile
from service.stores.tiered import Observe, TieredStore

__all__ = ["Observe", "Store", "Stores", "StoresConfig", "open_stores"]

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
    def state_ttl_seconds(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """`records` hold the truth, `states` what can be computed again. `backend` is "sqlite" or "redis"."""

    records: Store
    states: Store
    backend: str

    async def problem(self) -> str | None:
        """Why the durable backend cannot answer just now, or None. Cheap: at most one short look-up."""
        try:
            await self.records.get("health")
        except StoreError as error:
            return error.detail
        return None

    async def close(self) -> None:
        try:
            await self.states.close()
        finally:
            await self.records.close()


def open_stores(settings: StoresConfig, *, observe: Observe | None = None) -> Stores:
    """Blocks while an SQLite file is opened and checked. A Redis that is down is no error here: it may come back.

    Raises `StoreError` when the file under `data_dir` cannot be used, and names it. `observe(tier, result)` hears of
    every look-up of a class state: result is hit, miss or error.
    """
    records, durable, backend = _open_redis(settings) if settings.redis_url else _open_sqlite(settings)
    memory = MemoryStore(settings.memory_bytes)
    return Stores(records, TieredStore({"memory": memory, backend: durable}, observe=observe), backend)


def _open_redis(settings: StoresConfig) -> tuple[Store, Store, str]:
    assert settings.redis_url is not None
    server = open_redis(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    prefix = settings.redis_prefix
    return RedisStore(server, prefix), RedisStore(server, prefix, ttl=settings.state_ttl_seconds or _NEVER), "redis"


def _open_sqlite(settings: StoresConfig) -> tuple[Store, Store, str]:
    file = SqliteFile(settings.data_dir / "selftpt.sqlite3")
    return file.store("records"), file.store("states", ttl=settings.state_ttl_seconds or _NEVER), "sqlite"
