"""The part of a store that belongs to one tenant: the same store under keys of its own."""

from __future__ import annotations

from service.security.keys import DEFAULT_TENANT
from service.stores import Store


def tenant_store(store: Store, tenant: str) -> Store:
    """What was stored before there were tenants belongs to the default one, whose keys stay as they are."""
    return store if tenant == DEFAULT_TENANT else TenantStore(store, tenant)


def own_key(key: str | None, tenant: str) -> str | None:
    """The key of something remembered, kept apart by tenant: that it is known already would tell about others."""
    return key if key is None or tenant == DEFAULT_TENANT else f"{key}@{tenant}"


class TenantStore:
    """Cannot name a key of another tenant: every key gets the prefix, and a tenant's name holds no colon."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._prefix = f"tenant:{tenant}:"

    async def get(self, key: str) -> bytes | None:
        return await self._store.get(self._prefix + key)

    async def put(self, key: str, value: bytes) -> None:
        await self._store.put(self._prefix + key, value)

    async def delete(self, key: str) -> bool:
        return await self._store.delete(self._prefix + key)

    async def keys(self, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        behind = self._prefix + after if after else ""
        found = await self._store.keys(self._prefix + prefix, after=behind, limit=limit)
        return [key.removeprefix(self._prefix) for key in found]

    async def close(self) -> None:
        """The store is shared; whoever opened it closes it."""
