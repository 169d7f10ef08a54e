"""The Ray Serve application: front ends (the FastAPI application) and workers (engine and batcher), sharing a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import version
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from adapters.clip import Backbone
from service.app import create_app
from service.cluster.orders import AdaptOrder, BatchAnswer, BatchOrder, Refusal
from service.cluster.ray_workers import RayWorkers, reports_of
from service.cluster.remote_engine import Recipes, RemoteEngine
from service.cluster.shape import Shape
from service.cluster.worker import Worker
from service.compute.engine import Timing
from service.compute.image_engine import settings_backbone, with_engine
from service.core import build_engine
from service.errors import DeviceDead, StoreError
from service.process.allocator import keep_large_blocks
from service.process.garbage import leave_out_what_stays
from service.settings import Settings
from service.stores.turns import Failed
from service.telemetry.gathering import ClusterScrape, Report
from service.telemetry.logging import configure_logging
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing, Untraced

FRONT_END, WORKER = "front-end", "worker"


class WorkerReplica:
    async def __init__(self, settings: Settings, revision: str = "") -> None:  # type: ignore[misc]  # Ray awaits it
        keep_large_blocks()
        configure_logging(settings.log_level, settings.log_format)
        loaded = await asyncio.to_thread(settings_backbone, settings)
        backbone, _ = await asyncio.to_thread(with_engine, settings, loaded)
        self._metrics = metrics = Metrics()
        self._engine = build_engine(settings, backbone, metrics, Untraced())
        self._engine.start()
        await self._engine.probe()
        await self._engine.measure_batches()
        metrics.ready.set(1)
        self._worker = Worker(
            backbone,
            self._engine,
            hot_bytes=settings.hot_bytes,
            ended=lambda outcome: metrics.worker_adaptations.labels(outcome).inc(),
        )
        leave_out_what_stays()

    async def classify(self, order: BatchOrder) -> BatchAnswer:
        return await self._worker.classify(order)

    async def adapt(self, order: AdaptOrder) -> AsyncIterator[float | bytes | Failed | Refusal]:
        async for answer in self._worker.adapt(order):
            yield answer

    async def probe(self) -> Timing:
        return await self._worker.probe()

    async def report(self) -> Report:
        """Of this replica alone."""
        return await asyncio.to_thread(Report.of, self._metrics.registry, WORKER, replica_name(WORKER))

    async def check_health(self) -> None:
        """A replica whose device thread ended is replaced."""
        if not self._engine.batcher.alive:
            raise DeviceDead


class FrontEnd:
    """Loads the backbone for its tokenizer, preprocessing and fingerprint; its towers do nothing here."""

    def __init__(self, settings: Settings, workers: DeploymentHandle[Any], revision: str = "") -> None:
        self._settings = settings
        self._handle = workers
        self._workers = RayWorkers(workers)
        self._metrics = Metrics()  # until the application brings its own

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings, recipes = self._settings, Recipes()
        backbone = settings_backbone(settings.model_copy(update={"device": "cpu", "precision": "fp32"}))
        app = create_app(
            settings,
            backbone=backbone,
            build_adapter=recipes.builder(backbone),
            open_engine=partial(self._engine, recipes),
        )
        leave_out_what_stays()
        return app

    def _engine(
        self, recipes: Recipes, settings: Settings, backbone: Backbone, metrics: Metrics, tracing: Tracing
    ) -> RemoteEngine:
        engine = RemoteEngine(self._workers, recipes, max_waiting=settings.max_waiting)
        metrics.watch_queues(engine.batcher)
        metrics.watch_text_forwards(lambda: backbone.text.prompts_encoded)
        metrics.build.info({"version": version("self-tpt-service"), "backbone": backbone.name, "device": "workers"})
        metrics.scrape_by(
            ClusterScrape(
                self._own_report,
                {FRONT_END: self._front_end_reports, WORKER: partial(reports_of, self._handle)},
            )
        )
        self._metrics = metrics
        return engine

    async def report(self) -> Report:
        """Of this replica alone."""
        return await asyncio.to_thread(self._own_report)

    def _own_report(self) -> Report:
        return Report.of(self._metrics.registry, FRONT_END, replica_name(FRONT_END))

    async def _front_end_reports(self) -> list[Report]:
        return await reports_of(serve.get_deployment_handle(FRONT_END, serve.get_replica_context().app_name))


def replica_name(part: str) -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray leaves it without annotations
    return f"{part}-{serve.get_replica_context().replica_tag}@{address}"


def application(shape: Shape) -> serve.Application:
    """For `serve run service.cluster.app:application`; the settings come from the environment, as ever."""
    return cluster_application(Settings(), shape)


def cluster_application(settings: Settings, shape: Shape) -> serve.Application:
    """Raises `StoreError` without a Redis: replicas come and go, and would forget label sets with their disks."""
    if settings.redis_url is None:
        raise StoreError("a cluster keeps its label sets in Redis: set SELFTPT_REDIS_URL")
    workers = _deployment(
        WorkerReplica,
        WORKER,
        autoscaling_config=shape.worker_scaling(),
        max_surge_percent=shape.surge_percent,
        max_ongoing_requests=settings.max_waiting,
        graceful_shutdown_timeout_s=settings.shutdown_timeout + 5,
        ray_actor_options={"num_cpus": shape.worker_cpus, "num_gpus": shape.worker_gpus},
    )
    front_ends = _deployment(
        serve.ingress()(FrontEnd),
        FRONT_END,
        autoscaling_config=shape.front_end_scaling(),
        max_surge_percent=shape.surge_percent,
        max_ongoing_requests=settings.max_in_flight,
        graceful_shutdown_timeout_s=settings.shutdown_timeout + settings.max_wait_seconds,
        ray_actor_options={"num_cpus": shape.front_end_cpus},
    )
    # Replicas are replaced when what they are made with changes.
    return front_ends.bind(settings, workers.bind(settings, shape.revision), shape.revision)


def _deployment(kind: Any, name: str, **options: Any) -> serve.Deployment:
    """A replica that does not answer for 15 s is replaced; one that is told to end is asked every second whether it
    still works on something."""
    made: serve.Deployment = serve.deployment(
        name=name, health_check_period_s=5, health_check_timeout_s=15, graceful_shutdown_wait_loop_s=1.0, **options
    )(kind)
    return made
