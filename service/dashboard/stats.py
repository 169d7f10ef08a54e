"""From the rolling window to the answer of `GET /v1/stats`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from service.dashboard.answers import Column, Quantiles, RouteStats, StatsPoints, StatsSummary
from service.telemetry.metrics import STAGES
from service.telemetry.readings import Spread, Step, merged

CLASSIFY = re.compile(r"/v1/classify|/models/.*|/v2/models/.*/infer")
"""Routes that answer with what is in an image: what the headline and the objectives in docker/prometheus are about."""

LATELY_SECONDS = 60.0


def is_classify(route: str) -> bool:
    return CLASSIFY.fullmatch(route) is not None


def summary_of(steps: Sequence[Step]) -> StatsSummary:
    lately = [step for step in steps if step.at > steps[-1].at - LATELY_SECONDS] if steps else []
    seconds = sum(step.seconds for step in lately)
    requests = merged(_classify(step) for step in lately)
    errors = sum(step.errors(route) for step in lately for route in step.routes if is_classify(route))
    whole = max(seconds, 1e-9)
    return StatsSummary(
        seconds=round(seconds, 1),
        latency_ms=quantiles(requests),
        requests_per_second=round(requests.count / whole, 2),
        images_per_second=round(sum(step.count("images", "ok") for step in lately) / whole, 2),
        refused_per_second=round(sum(step.count("refused") for step in lately) / whole, 2),
        error_ratio=_ratio(errors, requests.count),
        images_per_batch=_rounded(merged(step.batches for step in lately).mean),
        cache_hit_ratio=_ratio(
            sum(step.count("state_lookups", "hot", "hit") for step in lately),
            sum(step.count("state_lookups", "hot") for step in lately),
        ),
        device_busy_ratio=round(min(1.0, sum(step.count("busy") for step in lately) / whole), 4),
    )


def points_of(steps: Sequence[Step]) -> StatsPoints:
    latency = [_classify(step) for step in steps]
    tiers = sorted({labels[0] for step in steps for labels in step.counts["state_lookups"]})
    caches = sorted({labels[0] for step in steps for labels in step.counts["cache_lookups"]})
    return StatsPoints(
        times=[round(step.at, 3) for step in steps],
        latency_ms={
            f"p{share}": [_milli(spread.quantile(share / 100)) for spread in latency] for share in (50, 95, 99)
        },
        stages_ms={stage: [_stage(step, stage) for step in steps] for stage in STAGES},
        per_second={
            "requests": [round(spread.count / step.seconds, 2) for spread, step in zip(latency, steps, strict=True)],
            "images": _rates(steps, lambda step: step.count("images", "ok")),
            "refused": _rates(steps, lambda step: step.count("refused")),
        },
        queue={
            "images": [step.gauges["queue_images"] for step in steps],
            "oldest_ms": [_milli(step.gauges["queue_oldest_seconds"]) for step in steps],
            "in_flight": [step.gauges["in_flight"] for step in steps],
        },
        images_per_batch=[_rounded(step.batches.mean) for step in steps],
        cache_hit_ratio={
            **{tier: [_hits(step, "state_lookups", tier) for step in steps] for tier in tiers},
            **{cache: [_hits(step, "cache_lookups", cache) for step in steps] for cache in caches},
        },
        device_busy_ratio={
            work: _rates(steps, lambda step, work=work: step.count("busy", work))  # type: ignore[misc]  # bound at once
            for work in ("images", "class_states")
        },
    )


def routes_of(steps: Sequence[Step]) -> list[RouteStats]:
    """Busiest first."""
    routes = {route for step in steps for route in step.routes}
    found = [
        RouteStats(
            route=route,
            requests=int(spread.count),
            errors=int(sum(step.errors(route) for step in steps)),
            latency_ms=quantiles(spread),
        )
        for route in routes
        for spread in [merged(step.latency(route) for step in steps)]
    ]
    return sorted(found, key=lambda one: (-one.requests, one.route))


def quantiles(spread: Spread) -> Quantiles:
    return Quantiles(
        p50=_milli(spread.quantile(0.5)), p95=_milli(spread.quantile(0.95)), p99=_milli(spread.quantile(0.99))
    )


def _classify(step: Step) -> Spread:
    return merged(step.latency(route) for route in step.routes if is_classify(route))


def _stage(step: Step, stage: str) -> float | None:
    """Its share of the mean request, so that the stages of one step can be stacked."""
    requests = step.stages.get(("total",))
    spent = step.stages.get((stage,))
    if requests is None:
        return None
    return _milli(spent.total / requests.count) if spent is not None else 0.0


def _hits(step: Step, name: str, which: str) -> float | None:
    return _ratio(step.count(name, which, "hit"), step.count(name, which))


def _rates(steps: Sequence[Step], count: Callable[[Step], float]) -> Column:
    return [round(count(step) / step.seconds, 4) for step in steps]


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
