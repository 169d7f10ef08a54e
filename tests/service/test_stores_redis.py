"""Redis when things go wrong: killed, frozen, restarted empty, wrong password, full, evicting; and the breaker."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from service.errors import StoreError
from service.stores.breaker import Breaker
from service.stores.memory import MemoryStore
from service.stores.redis import RedisServer, RedisStore, open_redis
from service.stores.redis_client import RedisAccess
from service.stores.tiered import TieredStore
from tests.valkey import RealRedis, real_redis


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


async def timed_failure(store: RedisStore) -> float:
    start = time.perf_counter()
    with pytest.raises(StoreError):
        await store.get("record:a")
    return time.perf_counter() - start


async def test_a_killed_server_is_an_error_until_it_is_back(redis: RealRedis) -> None:
    server = RedisServer(Redis.from_url(redis.url), Breaker(cooldown=0.05))
    store = RedisStore(server, "test")
    await store.put("record:a", b"value")
    redis.kill()
    with pytest.raises(StoreError):
        await store.get("record:a")
    with pytest.raises(StoreError):
        await store.put("record:b", b"value")
    redis.start()
    await asyncio.sleep(0.06)
    assert await store.get("record:a") is None, "it came back empty, and says so"
    await store.put("record:a", b"value")
    assert await store.get("record:a") == b"value"
    await store.close()


async def test_states_in_memory_outlive_the_server(redis: RealRedis) -> None:
    far = RedisStore(open_redis(RedisAccess(redis.url, timeout=0.2)), "test", ttl=60)
    store = TieredStore({"memory": MemoryStore(1 << 20), "redis": far})
    await store.put("state:a", b"value")
    redis.kill()
    assert await store.get("state:a") == b"value"
    with pytest.raises(StoreError):
        await store.get("state:b")
    await store.close()


async def test_a_frozen_server_costs_a_short_wait_and_then_none(redis: RealRedis) -> None:
    store = RedisStore(open_redis(RedisAccess(redis.url, timeout=0.1)), "test")
    await store.put("record:a", b"value")
    redis.freeze()
    first = [await timed_failure(store) for _ in range(3)]
    later = [await timed_failure(store) for _ in range(20)]
    redis.thaw()
    assert max(first) < 1.0
    assert sum(later) < 0.1
    await store.close()


async def test_a_hundred_callers_of_a_frozen_server_wait_together(redis: RealRedis) -> None:
    store = RedisStore(open_redis(RedisAccess(redis.url, timeout=0.1)), "test")
    await store.put("record:a", b"value")
    redis.freeze()
    start = time.perf_counter()
    answers = await asyncio.gather(*(store.get("record:a") for _ in range(100)), return_exceptions=True)
    assert time.perf_counter() - start < 3.0
    assert all(isinstance(answer, StoreError) for answer in answers)
    redis.thaw()
    await store.close()


async def test_a_thawed_server_gives_each_caller_its_own_answer(redis: RealRedis) -> None:
    server = RedisServer(Redis.from_url(redis.url, socket_timeout=0.05, max_connections=4), Breaker(cooldown=0.01))
    store = RedisStore(server, "test")
    for number in range(10):
        await store.put(f"record:{number}", str(number).encode())
    redis.freeze()
    await asyncio.gather(*(store.get(f"record:{number}") for number in range(4)), return_exceptions=True)
    redis.thaw()
    await asyncio.sleep(0.05)
    assert [await store.get(f"record:{number}") for number in range(10)] == [b"%d" % number for number in range(10)]
    await store.close()


async def test_a_wrong_password_is_a_store_error_that_does_not_repeat_it() -> None:
    with real_redis("--requirepass", "right") as redis:
        url = redis.url.replace("unix://", "unix://:wr0ng-secret@")
        store = RedisStore(open_redis(RedisAccess(url, timeout=1.0)), "test")
        with pytest.raises(StoreError) as caught:
            await store.put("record:a", b"value")
        assert "wr0ng-secret" not in f"{caught.value} {caught.value.__cause__}"
        await store.close()


async def test_the_right_password_opens() -> None:
    with real_redis("--requirepass", "right") as redis:
        store = RedisStore(open_redis(RedisAccess(redis.url.replace("unix://", "unix://:right@"), timeout=1.0)), "test")
        await store.put("record:a", b"value")
        assert await store.get("record:a") == b"value"
        await store.close()


async def test_a_full_server_refuses_writes_and_still_reads() -> None:
    with real_redis("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as redis:
        store = RedisStore(open_redis(RedisAccess(redis.url, timeout=1.0)), "test")
        await store.put("record:a", b"value")
        puts = [store.put(f"record:{number}", bytes(100_000)) for number in range(100)]
        refused = [error for error in await asyncio.gather(*puts, return_exceptions=True) if error]
        assert refused
        assert all(isinstance(error, StoreError) and "refused" in error.detail for error in refused)
        assert await store.get("record:a") == b"value"
        await store.close()


async def test_eviction_takes_states_and_leaves_records() -> None:
    with real_redis("--maxmemory", "6mb", "--maxmemory-policy", "volatile-lru") as redis:
        server = open_redis(RedisAccess(redis.url, timeout=1.0))
        records, states = RedisStore(server, "test"), RedisStore(server, "test", ttl=3600)
        for number in range(100):
            await records.put(f"record:{number:03}", bytes(1000))
            await states.put(f"state:{number:03}", bytes(100_000))
        # The server samples what it evicts, so no one state is sure to go; 10 MB do not fit into 6 MB, so many must.
        kept = [number for number in range(100) if await states.get(f"state:{number:03}") is not None]
        found = [await records.get(f"record:{number:03}") for number in range(100)]
        listed = await records.keys("record:", limit=200)
        await server.close()
    assert 0 < len(kept) < 60
    assert found == [bytes(1000)] * 100
    assert len(listed) == 100


async def test_states_expire_unless_they_are_used(redis: RealRedis) -> None:
    store = RedisStore(open_redis(RedisAccess(redis.url, timeout=1.0)), "test", ttl=0.3)
    await store.put("state:used", b"value")
    await store.put("state:unused", b"value")
    for _ in range(5):
        await asyncio.sleep(0.1)
        assert await store.get("state:used") == b"value"
    assert await store.get("state:unused") is None
    await store.close()


async def test_a_value_of_another_type_is_refused_not_returned(redis: RealRedis) -> None:
    client = Redis.from_url(redis.url)
    await client.rpush("{test}:record:a", "somebody else's list")
    store = RedisStore(open_redis(RedisAccess(redis.url, timeout=1.0)), "test")
    with pytest.raises(StoreError, match="refused"):
        await store.get("record:a")
    await client.aclose()
    await store.close()


async def test_prefixes_keep_deployments_apart(redis: RealRedis) -> None:
    server = open_redis(RedisAccess(redis.url, timeout=1.0))
    one, other = RedisStore(server, uuid.uuid4().hex), RedisStore(server, uuid.uuid4().hex)
    await one.put("record:a", b"value")
    assert await other.get("record:a") is None
    assert await other.keys("") == []
    await server.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "rediss://127.0.0.1:1", "unix:///nowhere.sock"])
async def test_a_server_that_was_never_there_is_found_missing_at_first_use(url: str) -> None:
    store = RedisStore(open_redis(RedisAccess(url, timeout=0.2)), "test")
    with pytest.raises(StoreError, match="unreachable"):
        await store.get("record:a")
    await store.close()


def test_a_senseless_url_is_refused_at_once() -> None:
    with pytest.raises(StoreError, match="URL"):
        open_redis(RedisAccess("redis://host:port/0", timeout=1.0))
    with pytest.raises(StoreError, match="URL"):
        open_redis(RedisAccess("https://example.org", timeout=1.0))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_open_breaker_lets_one_caller_probe_per_cool_down() -> None:
    clock = Clock()
    breaker = Breaker(failures=3, cooldown=2.0, clock=clock)
    for _ in range(3):
        assert breaker.admit()
        breaker.failed("down")
    assert not breaker.admit()
    clock.now += 2.1
    assert [breaker.admit() for _ in range(5)] == [True, False, False, False, False]
    clock.now += 2.1
    assert breaker.admit(), "the probe may have been abandoned by its caller"
    breaker.succeeded()
    assert all(breaker.admit() for _ in range(5))


def test_single_failures_do_not_open_the_breaker() -> None:
    breaker = Breaker(failures=3)
    for _ in range(10):
        breaker.failed("down")
        breaker.failed("down")
        breaker.succeeded()
        assert breaker.admit()
