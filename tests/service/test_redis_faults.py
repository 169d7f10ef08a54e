"""The whole service on a Redis that is not what it should be: known label sets answer, nothing is acknowledged that
was not kept, and all is well again when Redis is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.clip import Backbone
from service.settings import Settings
from service.stores import open_stores
from tests.redis_between import line_to
from tests.service.served import Served, photo, served
from tests.valkey import RealRedis, real_redis

PNG = {"content-type": "image/png"}
UPLOAD = "/v1/label-sets"


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


@asynccontextmanager
async def site_on(backbone: Backbone, url: str) -> AsyncIterator[Served]:
    stores = await asyncio.to_thread(open_stores, Settings(redis_url=url))  # type: ignore[arg-type]  # pydantic reads it
    async with served(backbone, slow=False, stores=stores, adapter="zero-shot") as site:
        yield site


async def upload(site: Served, *names: str) -> Any:
    return await site.http.post(UPLOAD, json={"classes": list(names)})


async def known(site: Served) -> str:
    """A label set that was used."""
    one = (await upload(site, "cat", "dog")).json()["id"]
    assert await answers(site, one)
    return str(one)


async def answers(site: Served, one: str) -> bool:
    answer = await site.http.post(f"/v1/classify?label_set={one}", content=photo(), headers=PNG)
    return answer.status_code == 200 and bool(answer.json()["results"][0]["predictions"])


async def inline_answers(site: Served, *names: str) -> bool:
    answer = await site.http.post(f"/v1/classify?labels={','.join(names)}", content=photo(), headers=PNG)
    return answer.status_code == 200


async def refuses_to_keep(site: Served, *names: str) -> bool:
    answer = await upload(site, *names)
    return (answer.status_code, answer.json()["type"]) == (503, "/problems/store-unavailable")


async def test_a_service_that_starts_without_redis_serves_what_needs_none_and_finds_it_later(
    tiny_backbone: Backbone, redis: RealRedis
) -> None:
    redis.kill()
    async with site_on(tiny_backbone, redis.url) as site:
        assert (await site.http.get("/readyz")).json()["status"] == "degraded"
        assert await inline_answers(site, "cat", "dog")
        assert await refuses_to_keep(site, "cat", "dog")
        redis.start()
        await until(lambda: keeps(site, "cat", "dog"))
        assert (await site.http.get("/readyz")).json()["status"] == "ready"


async def test_a_redis_that_dies_under_load_costs_no_answer(tiny_backbone: Backbone, redis: RealRedis) -> None:
    async with site_on(tiny_backbone, redis.url) as site:
        one, over = await known(site), asyncio.Event()

        async def load() -> list[bool]:
            found = []
            while not over.is_set():
                found.append(await answers(site, one))
            return found

        loads = [asyncio.ensure_future(load()) for _ in range(8)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(0.5)
        assert await refuses_to_keep(site, "a", "b")
        over.set()
        found = [answer for answers_ in await asyncio.gather(*loads) for answer in answers_]
        assert len(found) > 8
        assert all(found)


async def test_a_redis_that_takes_a_second_for_each_command_holds_up_no_known_label_set(
    tiny_backbone: Backbone, redis: RealRedis
) -> None:
    async with line_to(redis.url) as line, site_on(tiny_backbone, line.url) as site:
        one = await known(site)
        line.delay = 1.0
        assert await refuses_to_keep(site, "a", "b")
        assert all(await asyncio.gather(*(answers(site, one) for _ in range(20))))
        assert await inline_answers(site, "fork", "spoon")
        line.delay = 0.0
        await until(lambda: keeps(site, "a", "b"))


async def test_half_open_connections_are_given_up_and_made_anew(tiny_backbone: Backbone, redis: RealRedis) -> None:
    async with line_to(redis.url) as line, site_on(tiny_backbone, line.url) as site:
        one = await known(site)
        line.silent = True
        assert await refuses_to_keep(site, "a", "b")
        assert await answers(site, one)
        line.silent = False
        await until(lambda: keeps(site, "a", "b"))
        line.hang_up()
        await until(lambda: keeps(site, "c", "d"))


async def test_a_read_only_replica_answers_and_acknowledges_nothing(tiny_backbone: Backbone, redis: RealRedis) -> None:
    async with site_on(tiny_backbone, redis.url) as site:
        one = await known(site)
        await command(redis, "REPLICAOF", "127.0.0.1", "1")
        assert await refuses_to_keep(site, "a", "b")
        assert await answers(site, one)
        assert await inline_answers(site, "fork", "spoon")
        assert (await site.http.get(f"{UPLOAD}/{one}")).status_code == 200
        await command(redis, "REPLICAOF", "NO", "ONE")
        await until(lambda: keeps(site, "a", "b"))


async def test_a_redis_that_evicts_and_one_that_comes_back_empty_cost_no_answer_of_a_known_label_set(
    tiny_backbone: Backbone, redis: RealRedis
) -> None:
    async with site_on(tiny_backbone, redis.url) as site:
        one = await known(site)
        await command(redis, "FLUSHALL")
        assert await answers(site, one)
        assert (await upload(site, "cat", "dog")).is_success
        site.runtime.core.label_sets.states._hot.drop(one)
        assert await answers(site, one)


async def command(redis: RealRedis, *words: str) -> None:
    reader, writer = await asyncio.open_unix_connection(redis.url.removeprefix("unix://"))
    writer.write((" ".join(words) + "\r\n").encode())
    assert (await reader.readline()).startswith(b"+OK")
    writer.close()


async def keeps(site: Served, *names: str) -> bool:
    return (await upload(site, *names)).is_success


async def until(condition: Any) -> None:
    for _ in range(200):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("did not happen")
