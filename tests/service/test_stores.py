"""What every store promises, held against each of them; Redis is a real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from service.errors import StoreError
from service.stores import Store, Stores, open_stores
from service.stores.memory import MemoryStore
from service.stores.redis import RedisStore, open_redis
from service.stores.redis_client import RedisAccess
from service.stores.sqlite import SqliteFile
from service.stores.tiered import TieredStore
from tests.valkey import RealRedis, real_redis

BACKENDS = (
    "memory",
    "sqlite-records",
    "sqlite-states",
    "redis-records",
    "redis-states",
    "tiered-sqlite",
    "tiered-redis",
)


@pytest.fixture(scope="module")
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


def build(backend: str, folder: Path, request: pytest.FixtureRequest) -> Store:
    kind, _, part = backend.partition("-")
    if kind == "memory":
        return MemoryStore(1 << 20)
    if kind == "tiered":
        return TieredStore({"memory": MemoryStore(1 << 20), part: build(f"{part}-states", folder, request)})
    ttl = 60.0 if part == "states" else None
    if kind == "sqlite":
        return SqliteFile(folder / "test.sqlite3").store("states" if ttl else "records", ttl=ttl)
    server = open_redis(RedisAccess(request.getfixturevalue("redis").url, timeout=2.0))
    return RedisStore(server, uuid.uuid4().hex, ttl=ttl)


@pytest.fixture(params=BACKENDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = build(request.param, tmp_path, request)
    yield store
    await store.close()


async def test_an_absent_key_is_none(store: Store) -> None:
    assert await store.get("record:nothing") is None


async def test_what_was_put_comes_back(store: Store) -> None:
    await store.put("record:a", b"one")
    await store.put("record:a", b"two")
    assert await store.get("record:a") == b"two"


@pytest.mark.parametrize("value", [b"", b"\x00\xff not text", b"\r\n$-1\r\n", bytes(range(256)) * 1024])
async def test_any_bytes_pass_through_untouched(store: Store, value: bytes) -> None:
    await store.put("state:x", value)
    assert await store.get("state:x") == value


@pytest.mark.parametrize("key", ["name:größe 東京 🦊", "name:a b\nc", "name:*?[x]\\", "name:'; DROP TABLE records; --"])
async def test_any_text_is_a_key(store: Store, key: str) -> None:
    await store.put(key, b"value")
    assert await store.get(key) == b"value"
    assert await store.keys(key) == [key]


async def test_delete_says_whether_there_was_something(store: Store) -> None:
    await store.put("record:a", b"one")
    assert await store.delete("record:a")
    assert not await store.delete("record:a")
    assert await store.get("record:a") is None


async def test_keys_are_those_of_the_prefix_in_order(store: Store) -> None:
    for key in ("record:b", "name:x", "record:a", "record:", "record;", "recore", "record:\U0010ffff", "record:é"):
        await store.put(key, b"value")
    assert await store.keys("record:") == ["record:", "record:a", "record:b", "record:é", "record:\U0010ffff"]


async def test_keys_can_be_paged_through(store: Store) -> None:
    expected = [f"record:{number:02}" for number in range(7)]
    for key in [*expected, "name:z", "zebra"]:
        await store.put(key, b"value")
    first = await store.keys("record:", limit=3)
    second = await store.keys("record:", after=first[-1], limit=3)
    last = await store.keys("record:", after=second[-1], limit=3)
    assert [*first, *second, *last] == expected
    assert await store.keys("record:", after=expected[-1]) == []


async def test_a_page_may_start_anywhere(store: Store) -> None:
    await store.put("record:b", b"value")
    assert await store.keys("record:", after="a") == ["record:b"]
    assert await store.keys("record:", after="record:a") == ["record:b"]
    assert await store.keys("record:", after="zzz") == []


async def test_deleted_keys_leave_the_list(store: Store) -> None:
    await store.put("record:a", b"one")
    await store.put("record:b", b"two")
    await store.delete("record:a")
    assert await store.keys("record:") == ["record:b"]


async def test_many_callers_at_once_do_not_mix(store: Store) -> None:
    async def roundtrip(number: int) -> bool:
        value = str(number).encode() * 100
        await store.put(f"record:{number}", value)
        return await store.get(f"record:{number}") == value

    assert all(await asyncio.gather(*(roundtrip(number) for number in range(200))))


async def test_a_cancelled_caller_leaves_the_store_in_order(store: Store) -> None:
    await store.put("record:a", b"a" * 1000)
    for delay in (0.0, 0.0001, 0.0005, 0.001):
        task = asyncio.create_task(store.get("record:a"))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await store.get("record:none") is None
    assert await store.get("record:a") == b"a" * 1000


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.get("record:a")
    with pytest.raises(StoreError):
        await store.put("record:a", b"late")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@pytest.mark.parametrize("backend", ["memory", "sqlite-records", "redis-records", "redis-states"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(TEXT.filter(bool), max_size=8), prefix=TEXT, after=TEXT, limit=st.integers(1, 5))
def test_listing_equals_a_sorted_filter(
    backend: str, request: pytest.FixtureRequest, *, keys: set[str], prefix: str, after: str, limit: int
) -> None:
    async def listed(folder: Path) -> list[str]:
        store = build(backend, folder, request)
        for key in keys:
            await store.put(key, b"value")
        found = await store.keys(prefix, after=after, limit=limit)
        await store.close()
        return found

    with TemporaryDirectory() as folder:
        found = asyncio.run(listed(Path(folder)))
    assert found == sorted(key for key in keys if key.startswith(prefix) and key > after)[:limit]


class Config:
    """The settings that stores read."""

    redis_timeout = 2.0
    state_ttl_seconds = 60
    memory_bytes = 1 << 20
    lease_seconds = 5.0
    redis_ca_file = redis_cert_file = redis_key_file = redis_sentinel_password = None

    def __init__(self, data_dir: Path, redis_url: str | None = None) -> None:
        self.data_dir = data_dir
        self.redis_url = None if redis_url is None else SecretStr(redis_url)
        self.redis_prefix = uuid.uuid4().hex


@pytest.fixture(params=["sqlite", "redis"])
async def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    return Config(tmp_path, request.getfixturevalue("redis").url if request.param == "redis" else None)


async def reopened(stores: Stores, config: Config) -> Stores:
    await stores.close()
    return open_stores(config)


async def test_records_and_states_outlive_their_process(config: Config) -> None:
    stores = open_stores(config)
    await stores.records.put("record:a", b"record")
    await stores.states.put("state:a", b"state")
    stores = await reopened(stores, config)
    assert await stores.records.get("record:a") == b"record"
    assert await stores.states.get("state:a") == b"state"
    assert await stores.records.get("state:a") is None
    await stores.close()


async def test_look_ups_of_states_are_observed_by_tier(config: Config) -> None:
    heard: list[tuple[str, str]] = []
    stores = open_stores(config, observe=lambda tier, result: heard.append((tier, result)))
    await stores.states.get("state:a")
    await stores.states.put("state:a", b"state")
    await stores.states.get("state:a")
    assert heard == [("memory", "miss"), (stores.backend, "miss"), ("memory", "hit")]
    await stores.close()


async def test_a_working_backend_reports_no_problem(config: Config) -> None:
    stores = open_stores(config)
    assert await stores.problem() is None
    await stores.close()
    assert "closed" in (await stores.problem() or "")
