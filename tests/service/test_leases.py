"""Turns on a real Redis: one holder, renewal, expiry, the fence, failures told, revocation, loss of Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from service.errors import StoreError
from service.stores.memory import MemoryStore
from service.stores.redis import RedisServer, RedisStore, open_redis
from service.stores.redis_client import RedisAccess
from service.stores.redis_leases import RedisClaim, RedisLeases
from service.stores.turns import Failed
from tests.valkey import RealRedis, real_redis

KEY = "state:1:backbone:adapter:labels"
NAME = f"test:{KEY}"


@pytest.fixture(scope="module")
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


@pytest.fixture
async def server(redis: RealRedis) -> AsyncIterator[RedisServer]:
    client = Redis.from_url(redis.url)
    await client.flushall()
    await client.aclose()
    opened = open_redis(RedisAccess(redis.url, timeout=2.0))
    yield opened
    await opened.close()


def leases(server: RedisServer, seconds: float = 5.0, lost: list[str] | None = None) -> RedisLeases:
    return RedisLeases(server, "test", ttl=60, seconds=seconds, lost=(lost if lost is not None else []).append)


async def claimed(turns: RedisLeases, *, waited: bool = False) -> RedisClaim:
    claim = (await turns.take(KEY, waited=waited)).claim
    assert isinstance(claim, RedisClaim)
    return claim


def unwanted() -> None:
    raise AssertionError("nobody revoked it")


async def test_of_many_who_ask_at_once_one_has_the_turn(server: RedisServer) -> None:
    turns = [leases(server) for _ in range(64)]
    kinds = [turn.kind for turn in await asyncio.gather(*(one.take(KEY) for one in turns))]
    assert sorted(kinds) == ["ours"] + ["theirs"] * 63


async def test_a_kept_value_is_found_and_ends_the_turn(server: RedisServer) -> None:
    near = MemoryStore(1 << 20)
    turns = RedisLeases(server, "test", ttl=60, near=near.put)
    assert await (await claimed(turns)).keep(b"state")
    assert (await turns.take(KEY)).kind == "stored"
    assert await RedisStore(server, "test", ttl=60).get(KEY) == b"state"
    assert await near.get(KEY) == b"state"


async def test_a_silent_holder_loses_the_turn_and_its_late_write_is_fenced_off(server: RedisServer) -> None:
    lost: list[str] = []
    late = await claimed(leases(server, 0.2, lost))
    assert (await leases(server).take(KEY)).kind == "theirs"
    await asyncio.sleep(0.25)
    next_one = await claimed(leases(server), waited=True)
    assert int(next_one.token) > int(late.token)
    assert not await late.keep(b"late")
    assert await next_one.keep(b"next")
    assert not await late.keep(b"later still")
    assert await RedisStore(server, "test", ttl=60).get(KEY) == b"next"
    assert lost == ["fenced", "fenced"]


async def test_a_lease_that_ran_out_unnoticed_still_writes(server: RedisServer) -> None:
    claim = await claimed(leases(server, 0.05))
    await asyncio.sleep(0.1)
    assert await claim.keep(b"state"), "nobody else had the turn meanwhile"


async def test_a_renewed_lease_outlives_its_time(server: RedisServer) -> None:
    turns = leases(server, 0.9)
    claim = await claimed(turns)
    async with claim.keep_alive(unwanted):
        await asyncio.sleep(1.5)
        assert (await leases(server).take(KEY)).kind == "theirs"
    await asyncio.sleep(1.0)
    assert (await leases(server).take(KEY)).kind == "ours"


async def test_progress_reaches_who_waits_and_who_only_looks(server: RedisServer) -> None:
    claim = await claimed(leases(server))
    other = leases(server)
    async with claim.keep_alive(unwanted), other.news(KEY) as wait:
        await asyncio.sleep(0.3)
        claim.tell(0.25)
        assert await wait(5.0) == 0.25
        turn = await other.look(KEY)
        assert turn is not None
        assert (turn.kind, turn.progress) == ("theirs", 0.25)
    await other.close()


async def test_news_of_the_end_come_without_asking(server: RedisServer) -> None:
    claim, other = await claimed(leases(server)), leases(server)
    async with other.news(KEY) as wait:
        await asyncio.sleep(0.3)
        await claim.keep(b"state")
        began = time.monotonic()
        assert await wait(5.0) is None
        assert time.monotonic() - began < 2.0
    await other.close()


async def test_a_failure_is_told_to_others_and_then_they_may_try(server: RedisServer) -> None:
    claim = await claimed(leases(server))
    await claim.fail(Failed("AdaptationDiverged", "the loss became nan"))
    told = await leases(server).take(KEY)
    assert (told.kind, told.failed) == ("failed", Failed("AdaptationDiverged", "the loss became nan"))


async def test_a_released_turn_is_free_at_once(server: RedisServer) -> None:
    await (await claimed(leases(server))).release()
    assert await leases(server).look(KEY) is None
    assert (await leases(server).take(KEY)).kind == "ours"


async def test_a_revoked_turn_stops_its_holder_and_everybody_who_waited(server: RedisServer) -> None:
    lost: list[str] = []
    claim = await claimed(leases(server, 0.9, lost))
    told = asyncio.Event()
    async with claim.keep_alive(told.set):
        await leases(server).revoke(KEY)
        await asyncio.wait_for(told.wait(), 5)
    assert lost == ["revoked"]
    assert not await claim.keep(b"state of a deleted label set")
    assert (await leases(server).take(KEY, waited=True)).kind == "revoked"
    assert (await leases(server).take(KEY)).kind == "ours", "who asks anew means it"


async def test_a_lost_fence_refuses_the_old_holder_and_tokens_still_rise(server: RedisServer, redis: RealRedis) -> None:
    old = await claimed(leases(server))
    client = Redis.from_url(redis.url)
    await client.flushall()
    await client.aclose()
    new = await claimed(leases(server))
    assert int(new.token) > int(old.token)
    assert not await old.keep(b"old")
    assert await new.keep(b"new")


async def test_all_keys_of_a_turn_are_in_one_slot_and_all_expire(server: RedisServer, redis: RealRedis) -> None:
    await claimed(leases(server))
    client = Redis.from_url(redis.url)
    names = [NAME, f"{{{NAME}}}:lease", f"{{{NAME}}}:fence"]
    assert len({key_slot(name.encode()) for name in names}) == 1
    assert all([await client.pttl(name) > 0 for name in names[1:]])
    assert await client.pttl(names[1]) <= 5000
    await client.aclose()


async def test_without_redis_asking_for_a_turn_is_an_error() -> None:
    unreachable = open_redis(RedisAccess("redis://127.0.0.1:1", timeout=0.2))
    with pytest.raises(StoreError):
        await leases(unreachable).take(KEY)
    with pytest.raises(StoreError):
        await leases(unreachable).revoke(KEY)
    await unreachable.close()
