"""The memory tier's bound, and what tiers do when one of them is broken."""

from __future__ import annotations

import pytest

from service.errors import StoreError
from service.stores.memory import MemoryStore
from service.stores.tiered import TieredStore


class BrokenStore:
    async def get(self, key: str) -> bytes | None:
        raise StoreError("broken")

    async def put(self, key: str, value: bytes) -> None:
        raise StoreError("broken")

    async def delete(self, key: str) -> bool:
        raise StoreError("broken")

    async def keys(self, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        raise StoreError("broken")

    async def close(self) -> None:
        raise StoreError("broken")


async def test_memory_forgets_what_was_used_longest_ago() -> None:
    store = MemoryStore(4000)
    for key in ("a", "b", "c"):
        await store.put(key, bytes(1000))
    await store.get("a")
    await store.put("d", bytes(1000))
    assert await store.keys("") == ["a", "c", "d"]


async def test_memory_stays_below_its_bound_through_overwrites_and_deletions() -> None:
    store = MemoryStore(4000)
    for round_ in range(50):
        await store.put(str(round_ % 5), bytes(200 * (round_ % 7)))
        await store.delete(str(round_ % 3))
    held = [await store.get(key) or b"" for key in await store.keys("")]
    assert sum(map(len, held)) <= 4000
    await store.put("late", bytes(3000))
    assert await store.get("late") is not None


async def test_memory_does_not_keep_what_is_larger_than_itself() -> None:
    store = MemoryStore(1000)
    await store.put("small", b"kept")
    await store.put("large", b"old")
    await store.put("large", bytes(5000))
    assert await store.get("large") is None
    assert await store.get("small") == b"kept"


async def test_a_memory_of_no_size_is_a_cache_that_always_misses() -> None:
    store = MemoryStore(0)
    await store.put("a", b"")
    assert await store.get("a") is None


async def test_the_near_tier_is_filled_from_the_far_one() -> None:
    near, far = MemoryStore(1 << 20), MemoryStore(1 << 20)
    await far.put("a", b"value")
    assert await TieredStore({"near": near, "far": far}).get("a") == b"value"
    assert await near.get("a") == b"value"


async def test_a_broken_near_tier_is_skipped() -> None:
    heard: list[tuple[str, str]] = []
    store = TieredStore(
        {"near": BrokenStore(), "far": MemoryStore(1 << 20)}, observe=lambda *answer: heard.append(answer)
    )
    await store.put("a", b"value")
    assert await store.get("a") == b"value"
    assert await store.get("b") is None
    assert ("near", "error") in heard
    assert heard[-1] == ("far", "miss")


async def test_a_broken_far_tier_is_never_taken_for_absence() -> None:
    near = MemoryStore(1 << 20)
    store = TieredStore({"near": near, "far": BrokenStore()})
    with pytest.raises(StoreError):
        await store.get("a")
    await near.put("a", b"value")
    assert await store.get("a") == b"value"
    with pytest.raises(StoreError):
        await store.keys("")


async def test_a_value_that_the_far_tier_refused_is_served_from_the_near_one() -> None:
    store = TieredStore({"near": MemoryStore(1 << 20), "far": BrokenStore()})
    with pytest.raises(StoreError):
        await store.put("a", b"value")
    assert await store.get("a") == b"value"


async def test_a_deletion_reaches_every_tier_and_fails_if_a_copy_may_be_left() -> None:
    near, far = MemoryStore(1 << 20), MemoryStore(1 << 20)
    store = TieredStore({"near": near, "broken": BrokenStore(), "far": far})
    await near.put("a", b"value")
    await far.put("a", b"value")
    with pytest.raises(StoreError):
        await store.delete("a")
    assert await near.get("a") is None
    assert await far.get("a") is None


async def test_closing_closes_every_tier_although_one_fails() -> None:
    far = MemoryStore(1 << 20)
    with pytest.raises(StoreError):
        await TieredStore({"near": BrokenStore(), "far": far}).close()
    with pytest.raises(StoreError):
        await far.get("a")
