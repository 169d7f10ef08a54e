"""The rolling window, and what GET /v1/stats makes of it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from adapters.clip import Backbone
from service.dashboard.stats import points_of, routes_of, summary_of
from service.telemetry.metrics import BUCKETS, Metrics
from service.telemetry.readings import NOTHING, Spread
from service.telemetry.window import RollingWindow
from tests.service.fakes import soon
from tests.service.served import photo, served

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def request(metrics: Metrics, seconds: float, route: str = "/v1/classify", status: str = "200") -> None:
    metrics.request_seconds.labels(route, status).observe(seconds)


def test_buckets_are_geometric_from_a_tenth_of_a_millisecond_on() -> None:
    ratios = [high / low for low, high in pairwise(BUCKETS)]
    assert BUCKETS[0] == 1e-4
    assert 30 <= BUCKETS[-1] <= 40
    assert all(1.5 < ratio < 1.65 for ratio in ratios)


def test_a_quantile_is_interpolated_within_its_bucket_as_prometheus_does() -> None:
    spread = Spread((0.0, 10.0, 20.0, 20.0), 25.0)
    assert spread.quantile(0.5, (1.0, 2.0, 4.0)) == 2.0
    assert spread.quantile(0.75, (1.0, 2.0, 4.0)) == 3.0
    assert Spread((0.0, 0.0, 5.0), 99.0).quantile(0.5, (1.0, 2.0)) == 2.0
    assert NOTHING.quantile(0.5) is None


def test_a_step_holds_what_happened_in_it_and_nothing_of_before(metrics: Metrics) -> None:
    request(metrics, 5.0)
    window = RollingWindow(metrics)
    request(metrics, 0.020)
    window.sample()
    request(metrics, 0.002)
    window.sample()
    first, second = (step.latency("/v1/classify") for step in window.steps)
    assert (first.count, second.count) == (1, 1)
    assert 0.016 <= (first.quantile(0.5) or 0) <= 0.025
    assert 0.0016 <= (second.quantile(0.5) or 0) <= 0.0025


def test_the_window_forgets_the_oldest_step(metrics: Metrics) -> None:
    window = RollingWindow(metrics, kept=3)
    for _ in range(5):
        window.sample()
    assert len(window.steps) == 3
    assert window.seconds == 6.0


def test_a_point_of_the_trend_covers_the_steps_before_it(metrics: Metrics) -> None:
    window = RollingWindow(metrics)
    for _ in range(8):
        request(metrics, 0.1)
        window.sample()
    assert [step.latency("/v1/classify").count for step in window.trend] == [1, 2, 3, 4, 5, 5, 5, 5]
    assert len(window.trend) == len(window.steps)


def test_the_summary_is_about_classify_requests_alone(metrics: Metrics) -> None:
    window = RollingWindow(metrics)
    request(metrics, 0.1)
    request(metrics, 0.1, status="503")
    request(metrics, 30.0, route="/v1/label-sets")
    window.sample()
    summary, routes = summary_of(window.steps), routes_of(window.steps)
    assert summary.error_ratio == 0.5
    assert summary.latency_ms.p99 is not None
    assert summary.latency_ms.p99 < 200
    assert [(one.route, one.requests, one.errors) for one in routes] == [
        ("/v1/classify", 2, 1),
        ("/v1/label-sets", 1, 0),
    ]


def test_stacked_stages_add_up_to_the_mean_request(metrics: Metrics) -> None:
    window = RollingWindow(metrics)
    for _ in range(4):
        for stage, seconds in (("decode", 0.002), ("queue", 0.001), ("forward", 0.007), ("total", 0.010)):
            metrics.record_stage(stage, seconds, {})
    window.sample()
    columns = points_of(window.steps).stages_ms
    assert columns["decode"] == [2.0]
    assert sum(column[0] or 0 for column in columns.values()) == pytest.approx(10.0)


def test_nothing_is_told_as_nothing(metrics: Metrics) -> None:
    window = RollingWindow(metrics)
    assert summary_of(window.steps).latency_ms.p50 is None
    window.sample()
    points = points_of(window.steps)
    assert points.latency_ms["p50"] == [None]
    assert points.images_per_batch == [None]
    assert points.per_second["requests"] == [0.0]


async def test_stats_tell_of_traffic_device_and_adaptations_under_way(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await site.http.post("/v1/label-sets", json={"classes": ["cat", "dog"]})
        await soon(lambda: site.slow.begun == 1)
        await site.http.post("/v1/classify?labels=cat,dog&adapter=zero-shot", content=photo(), headers=PNG)
        site.runtime.window.sample()
        stats = (await site.http.get("/v1/stats")).json()
    (job,) = stats["adaptations"]["running"]
    assert (job["adapter"], job["classes"]) == ("self-tpt", 2)
    assert stats["device"]["alive"]
    assert any(stats["points"]["stages_ms"]["forward"])
    assert stats["summary"]["latency_ms"]["p50"] > 0


async def test_the_store_is_watched_without_anybody_asking(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await soon(lambda: site.value("selftpt_dependency_up", dependency="dict") == 1)


async def test_look_ups_of_class_features_and_scores_of_answers_are_counted(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await site.http.post("/v1/classify?labels=cat,dog&adapter=zero-shot", content=photo(), headers=PNG)
        await site.http.post("/v1/classify?labels=dog,bird&adapter=zero-shot", content=photo(), headers=PNG)
        assert site.value("selftpt_cache_lookups_total", cache="class_features", result="miss") > 1
        assert site.value("selftpt_cache_lookups_total", cache="class_features", result="hit") >= 1
        assert site.value("selftpt_cache_bytes", cache="class_features") > 0
        assert site.value("selftpt_top1_score_count", adapter="zero-shot") == 2
        assert site.value("selftpt_device_busy_seconds_total", work="class_states") > 0
        assert site.value("selftpt_worker_heartbeat_age_seconds", worker="local") == 0
