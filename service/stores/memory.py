"""The nearest tier: a least-recently-used table in this process, bounded by bytes. Forgets; never a place for truth."""

from __future__ import annotations

from collections import OrderedDict

from service.errors import StoreError

_ENTRY_BYTES = 200
"""What one entry costs beside its key and value (dictionary slot and two object headers), rounded up."""


class MemoryStore:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._closed = False

    async def get(self, key: str) -> bytes | None:
        self._check_open()
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes) -> None:
        """A value that is larger than the whole bound is not kept, and an older one of that key is dropped."""
        self._check_open()
        self._drop(key)
        if _cost(key, value) > self._max_bytes:
            return
        self._entries[key] = value
        self._bytes += _cost(key, value)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    async def delete(self, key: str) -> bool:
        self._check_open()
        return self._drop(key)

    async def keys(self, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        self._check_open()
        return sorted(key for key in self._entries if key.startswith(prefix) and key > after)[:limit]

    async def close(self) -> None:
        self._closed = True
        self._entries.clear()
        self._bytes = 0

    def _drop(self, key: str) -> bool:
        value = self._entries.pop(key, None)
        if value is None:
            return False
        self._bytes -= _cost(key, value)
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the memory store is closed")


def _cost(key: str, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_BYTES
