"""Two ordinary services on one Redis adapt a label set once between them; when the one that does it is frozen or
killed the other takes over, and what the first writes late is refused."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from benchmarks.names import class_names
from benchmarks.process import ServiceProcess
from tests.e2e.calls import photo, ranking, wait_until
from tests.valkey import RealRedis, real_redis

pytestmark = pytest.mark.slow

CALLERS = 64
LONG = 100
"""Classes of a label set whose adaptation takes seconds."""

Pair = tuple[ServiceProcess, ServiceProcess]


@pytest.fixture(scope="module")
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


@pytest.fixture(scope="module")
def pair(redis: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folders: tuple[Path, Path] = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    settings = {"redis_url": redis.url, "threads": "1", "lease_seconds": "2", "engine": "torch"}
    settings["redis_timeout"] = "5"  # a test machine may be busy with other things
    with ServiceProcess(folders[0], settings) as one, ServiceProcess(folders[1], settings) as other:
        one.wait_ready()
        other.wait_ready()
        yield one, other


def total(pair: Pair, name: str, **labels: str) -> float:
    return sum(service.metric(name, **labels) for service in pair)


def shown(service: ServiceProcess, label_set: str) -> dict[str, Any]:
    answer = service.client.get(f"/v1/label-sets/{label_set}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def rush(pair: Pair, labels: list[str]) -> list[httpx.Response]:
    """First requests for these labels, `CALLERS` to each service, all at once."""

    async def ask(service: ServiceProcess) -> list[httpx.Response]:
        headers = {"Content-Type": "image/jpeg", "Prefer": "wait=60"}
        limits = httpx.Limits(max_connections=CALLERS)
        async with httpx.AsyncClient(base_url=service.url, timeout=120.0, limits=limits, trust_env=False) as client:
            call = {"params": {"labels": labels}, "content": photo("coffee"), "headers": headers}
            return list(await asyncio.gather(*(client.post("/v1/classify", **call) for _ in range(CALLERS))))  # type: ignore[arg-type]  # the call's arguments

    return [answer for part in await asyncio.gather(*map(ask, pair)) for answer in part]


def test_128_concurrent_first_requests_at_two_services_cost_one_adaptation(pair: Pair) -> None:
    before = total(pair, "selftpt_adaptations_total")
    answers = asyncio.run(rush(pair, ["cat", "dog", "rush hour"]))
    assert [answer.status_code for answer in answers] == [200] * (2 * CALLERS)
    assert all(answer.json()["adapted"] for answer in answers)
    assert len({str(ranking(answer.json())) for answer in answers}) == 1
    assert total(pair, "selftpt_adaptations_total") - before == 1


def begun(pair: Pair, salt: int) -> str:
    """A label set that the first service adapts just now, as the second can tell."""
    body = {"classes": class_names(LONG, salt=salt)}
    label_set: str = pair[0].client.post("/v1/label-sets", json=body).json()["id"]
    wait_until(lambda: 0 < shown(pair[1], label_set)["progress"] < 1)
    assert shown(pair[1], label_set)["status"] == "adapting"
    return label_set


def test_a_frozen_holder_is_replaced_and_its_late_write_refused(pair: Pair, redis: RealRedis) -> None:
    one, other = pair
    label_set = begun(pair, salt=1)
    os.kill(one.pid, signal.SIGSTOP)
    try:
        answer = other.client.post(
            f"/v1/classify?label_set={label_set}",
            content=photo("coffee"),
            headers={"Content-Type": "image/jpeg", "Prefer": "wait=60"},
        ).json()
        kept = stored(redis)
    finally:
        os.kill(one.pid, signal.SIGCONT)
    assert answer["adapted"]
    wait_until(lambda: one.metric("selftpt_leases_total", event="fenced") == 1, 90)
    assert other.metric("selftpt_leases_total", event="taken_over") == 1
    assert stored(redis) == kept
    assert shown(one, label_set)["status"] == "ready"


def test_kill_9_of_the_holder_leaves_the_work_to_the_other(pair: Pair) -> None:
    one, other = pair
    label_set = begun(pair, salt=2)
    one.kill()
    answer = other.client.post(
        f"/v1/classify?label_set={label_set}",
        content=photo("coffee"),
        headers={"Content-Type": "image/jpeg", "Prefer": "wait=60"},
    ).json()
    assert answer["adapted"]
    assert shown(other, label_set)["status"] == "ready"


def stored(redis: RealRedis) -> dict[bytes, bytes | None]:
    with Redis.from_url(redis.url) as client:
        return {name: client.get(name) for name in client.scan_iter("selftpt:state:*")}
