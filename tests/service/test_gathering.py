"""One scrape for a whole cluster, without Ray: who is told apart, and what is left when some are silent."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from adapters.clip import Backbone
from service.app import create_app
from service.settings import Settings
from service.telemetry.gathering import ClusterScrape, Report
from service.telemetry.metrics import Metrics


def report(part: str, instance: str, batches: int = 0, heartbeat: float = 0.0) -> Report:
    metrics = Metrics()
    metrics.watch_worker("local", lambda: heartbeat)
    for _ in range(batches):
        metrics.batch_size.observe(4)
    sent: Report = pickle.loads(pickle.dumps(Report.of(metrics.registry, part, instance)))
    return sent


def scrape_of(front_ends: Sequence[Report], workers: Sequence[Report]) -> ClusterScrape:
    async def front_end_reports() -> Sequence[Report]:
        return front_ends

    async def worker_reports() -> Sequence[Report]:
        return workers

    return ClusterScrape(lambda: report("front-end", "f1"), {"front-end": front_end_reports, "worker": worker_reports})


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def test_each_replica_is_told_apart() -> None:
    both = [report("worker", "w1", batches=2), report("worker", "w2", batches=3, heartbeat=70.0)]
    found = await scrape_of([report("front-end", "f1"), report("front-end", "f2")], both)()
    assert value(found, "selftpt_batch_size_count", part="worker", instance="w1") == 2
    assert value(found, "selftpt_batch_size_count", part="worker", instance="w2") == 3
    assert value(found, "selftpt_worker_heartbeat_age_seconds", worker="local", part="worker", instance="w2") == 70
    assert [value(found, "selftpt_replicas", part=part) for part in ("front-end", "worker")] == [2, 2]


async def test_each_family_is_told_once_as_the_format_wants_it() -> None:
    found = await scrape_of([], [report("worker", "w1"), report("worker", "w2")])()
    text = generate_latest(found).decode()
    assert text.count("# TYPE selftpt_batch_size histogram") == 1
    assert text.count("selftpt_batch_size_count{") == 3


async def test_a_front_end_that_hears_nobody_answers_for_itself() -> None:
    found = await scrape_of([], [])()
    assert value(found, "selftpt_in_flight_requests", part="front-end", instance="f1") == 0
    assert [value(found, "selftpt_replicas", part=part) for part in ("front-end", "worker")] == [1, 0]


async def test_the_metrics_route_answers_with_what_was_gathered(tiny_backbone: Backbone) -> None:
    app = create_app(Settings(), backbone=tiny_backbone)
    app.state.runtime.metrics.scrape_by(scrape_of([], [report("worker", "w1")]))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.get("/metrics")
    assert 'selftpt_ready{instance="w1",part="worker"} 0.0' in answer.text
