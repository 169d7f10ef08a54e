"""`GET /v1/stats`, and the static parts of the page at `/dashboard`."""

from __future__ import annotations

import asyncio
import time
from importlib.resources import files

from fastapi import APIRouter, FastAPI

from service.core import Core
from service.dashboard.answers import (
    AdaptationJob,
    AdaptationStats,
    DeviceStats,
    RouteStats,
    StatsAnswer,
    StatsPoints,
    StatsSummary,
)
from service.dashboard.stats import points_of, routes_of, summary_of
from service.http.deps import CoreDep, RuntimeDep
from service.http.problems import problem_answers
from service.http.static import static_part
from service.telemetry.collectors import device_memory
from service.telemetry.readings import Reading

PAGES = {
    "/dashboard": ("index.html", "text/html; charset=utf-8"),
    "/dashboard/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/dashboard/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
}

router = APIRouter()


@router.get(
    "/v1/stats",
    operation_id="stats",
    response_description="The last minutes of this process.",
    responses=problem_answers(503),
)
async def stats(runtime: RuntimeDep, core: CoreDep) -> StatsAnswer:
    window = runtime.window
    steps, trend, now = window.steps, window.trend, window.read()

    def reckoned() -> tuple[StatsSummary, StatsPoints, list[RouteStats]]:
        return summary_of(steps), points_of(trend), routes_of(steps)

    summary, points, routes = await asyncio.to_thread(reckoned)  # milliseconds, which nobody else shall wait for
    return StatsAnswer(
        now=now.at,
        step_seconds=window.step,
        window_seconds=window.seconds,
        summary=summary,
        points=points,
        routes=routes,
        adaptations=adaptations_of(core, now),
        device=device_of(core, now),
    )


def adaptations_of(core: Core, now: Reading) -> AdaptationStats:
    def ended(outcome: str) -> int:
        return int(sum(value for (_, kind), value in now.counts["adaptations"].items() if kind == outcome))

    moment = time.perf_counter()
    running = [
        AdaptationJob(
            adapter=flight.want.adapter.name,
            classes=len(flight.want.labels.classes),
            status=flight.snapshot.status,
            progress=round(flight.snapshot.progress, 4),
            seconds=round(moment - flight.since, 2),
        )
        for flight in core.label_sets.states.under_way
    ]
    return AdaptationStats(
        running=running,
        ready=ended("ready"),
        failed=ended("failed"),
        cancelled=ended("cancelled"),
        coalesced=int(sum(now.counts["coalesced"].values())),
    )


def device_of(core: Core, now: Reading) -> DeviceStats:
    backbone, memory = core.backbone, device_memory(core.backbone.device)
    return DeviceStats(
        name=str(backbone.device),
        backbone=backbone.name,
        precision=backbone.precision,
        alive=core.engine.batcher.alive,
        heartbeat_age_seconds=round(core.engine.heartbeat_age(), 3),
        memory_bytes=memory._asdict() if memory is not None else {},
        queue_images=int(now.gauges["queue_images"]),
        queue_oldest_seconds=round(now.gauges["queue_oldest_seconds"], 3),
        in_flight=int(now.gauges["in_flight"]),
    )


def mount_dashboard(app: FastAPI) -> None:
    """Adds the page and its parts to `app`, outside of the documented API."""
    folder = files("service.dashboard")
    for path, (name, media_type) in PAGES.items():
        handler = static_part(folder.joinpath(name).read_bytes(), media_type)
        app.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False, name=f"dashboard {name}")
