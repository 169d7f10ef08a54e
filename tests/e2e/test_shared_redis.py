"""Two services on one real Redis: what one adapted the other knows, and losing Redis degrades them without killing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.process import ServiceProcess
from tests.e2e.calls import LABELS, classify, ranking, upload, wait_until
from tests.valkey import RealRedis, real_redis

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


@pytest.fixture(scope="module")
def pair(redis: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    folders: tuple[Path, Path] = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    settings = {"redis_url": redis.url, "threads": "1"}
    with ServiceProcess(folders[0], settings) as one, ServiceProcess(folders[1], settings) as other:
        one.wait_ready()
        other.wait_ready()
        yield one, other


def test_what_one_process_adapted_the_other_serves_without_text_passes(
    pair: tuple[ServiceProcess, ServiceProcess],
) -> None:
    one, other = pair
    label_set = upload(one, LABELS, name="shared")["id"]
    prompts = other.metric("selftpt_text_forwards_total")
    answer = classify(other, "shared")
    assert answer["adapted"]
    assert ranking(answer) == ranking(classify(one, label_set))
    assert other.metric("selftpt_text_forwards_total") == prompts
    assert other.metric("selftpt_adaptations_total") == 0


def test_without_redis_the_service_is_degraded_not_dead(
    pair: tuple[ServiceProcess, ServiceProcess], redis: RealRedis
) -> None:
    service = pair[0]
    label_set = upload(service, [*LABELS, "harbour"])["id"]
    known = ranking(classify(service, label_set))
    redis.kill()
    try:
        ready = service.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ranking(classify(service, label_set)) == known
        refused = service.client.post("/v1/label-sets", json={"classes": ["a new one", "another"]})
        assert (refused.status_code, refused.json()["type"].rsplit("/", 1)[-1]) == (503, "store-unavailable")
        assert str(redis.url.removeprefix("unix://")) not in refused.text
        assert service.client.get("/livez").status_code == 200
    finally:
        redis.start()


def test_redis_coming_back_empty_is_used_again(pair: tuple[ServiceProcess, ServiceProcess], redis: RealRedis) -> None:
    redis.kill()
    redis.start()
    service = pair[0]
    wait_until(lambda: service.client.get("/readyz").json()["status"] == "ready")
    label_set = upload(service, [*LABELS, "lighthouse"])["id"]
    assert classify(pair[1], label_set)["adapted"]
