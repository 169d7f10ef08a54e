"""Several stores as one, nearest first. The last tier is the truth; the others are caches of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from service.errors import StoreError

if TYPE_CHECKING:
    from service.stores import Store

Observe = Callable[[str, str], None]
"""Called with the name of a tier and what it answered: hit, miss or error."""

_log = logging.getLogger(__name__)


class TieredStore:
    """A broken tier is skipped, but never turned into "not there": only the last tier may say that something is
    absent."""

    def __init__(self, tiers: Mapping[str, Store], *, observe: Observe | None = None) -> None:
        """`tiers` maps names to stores in the order in which they are asked."""
        assert tiers
        self._tiers = tuple(tiers.items())
        self._truth = self._tiers[-1][1]
        self._observe = observe or _ignore

    async def get(self, key: str) -> bytes | None:
        for depth, (name, store) in enumerate(self._tiers):
            try:
                value = await store.get(key)
            except StoreError:
                self._observe(name, "error")
                if store is self._truth:
                    raise
                continue
            self._observe(name, "miss" if value is None else "hit")
            if value is not None:
                await self._back_fill(depth, key, value)
                return value
        return None

    async def put(self, key: str, value: bytes) -> None:
        """Every tier is tried; raises when the last one failed, and then the nearer ones hold the value all the
        same."""
        await self._back_fill(len(self._tiers) - 1, key, value)
        await self._truth.put(key, value)

    async def delete(self, key: str) -> bool:
        """Every tier is tried; raises when any failed, since a copy may be left."""
        found = False
        failure: StoreError | None = None
        for _, store in self._tiers:
            try:
                found = await store.delete(key) or found
            except StoreError as error:
                failure = error
        if failure is not None:
            raise failure
        return found

    async def keys(self, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        return await self._truth.keys(prefix, after=after, limit=limit)

    async def close(self) -> None:
        failure: StoreError | None = None
        for _, store in self._tiers:
            try:
                await store.close()
            except StoreError as error:
                failure = error
        if failure is not None:
            raise failure

    async def _back_fill(self, depth: int, key: str, value: bytes) -> None:
        for name, store in self._tiers[:depth]:
            try:
                await store.put(key, value)
            except StoreError as error:
                self._observe(name, "error")
                _log.warning("store tier %s did not take %s: %s", name, key, error)


def _ignore(tier: str, result: str) -> None:
    pass
