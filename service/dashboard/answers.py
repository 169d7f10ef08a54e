"""What `GET /v1/stats` answers with. Columns of `points` have one value per moment of `times`; null is "nothing fell
into that step"."""

from __future__ import annotations

from pydantic import BaseModel

Column = list[float | None]


class Quantiles(BaseModel):
    """Milliseconds."""

    p50: float | None
    p95: float | None
    p99: float | None


class StatsSummary(BaseModel):
    """Over the last minute; `requests` are classify requests."""

    seconds: float
    latency_ms: Quantiles
    requests_per_second: float
    images_per_second: float
    refused_per_second: float
    error_ratio: float | None
    images_per_batch: float | None
    cache_hit_ratio: float | None
    device_busy_ratio: float


class RouteStats(BaseModel):
    """Over the whole window."""

    route: str
    requests: int
    errors: int
    latency_ms: Quantiles


class StatsPoints(BaseModel):
    times: list[float]
    latency_ms: dict[str, Column]
    stages_ms: dict[str, Column]
    per_second: dict[str, Column]
    queue: dict[str, Column]
    images_per_batch: Column
    cache_hit_ratio: dict[str, Column]
    device_busy_ratio: dict[str, Column]


class AdaptationJob(BaseModel):
    """One class state being computed."""

    adapter: str
    classes: int
    status: str
    progress: float
    seconds: float


class AdaptationStats(BaseModel):
    running: list[AdaptationJob]
    ready: int
    failed: int
    cancelled: int
    coalesced: int


class DeviceStats(BaseModel):
    name: str
    backbone: str
    precision: str
    alive: bool
    heartbeat_age_seconds: float
    memory_bytes: dict[str, float]
    queue_images: int
    queue_oldest_seconds: float
    in_flight: int


class StatsAnswer(BaseModel):
    now: float
    step_seconds: float
    window_seconds: float
    summary: StatsSummary
    points: StatsPoints
    routes: list[RouteStats]
    adaptations: AdaptationStats
    device: DeviceStats
