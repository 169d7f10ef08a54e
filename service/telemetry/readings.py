"""What all metrics said at one moment, reduced to what the dashboard shows; and what happened between two moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.metrics import MetricWrapperBase

from service.telemetry.metrics import BUCKETS, Metrics

Labels = tuple[str, ...]
Counts = Mapping[Labels, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram: how many fell at or under each bound (the last bound is infinite), and their sum."""

    cumulative: tuple[float, ...]
    total: float

    @property
    def count(self) -> float:
        return self.cumulative[-1] if self.cumulative else 0.0

    def minus(self, other: Spread | None) -> Spread:
        if other is None or not other.cumulative:
            return self
        return Spread(
            tuple(new - old for new, old in zip(self.cumulative, other.cumulative, strict=True)),
            self.total - other.total,
        )

    def plus(self, other: Spread) -> Spread:
        if not (self.cumulative and other.cumulative):
            return self if self.cumulative else other
        both = tuple(one + two for one, two in zip(self.cumulative, other.cumulative, strict=True))
        return Spread(both, self.total + other.total)

    def quantile(self, share: float, bounds: Sequence[float] = BUCKETS) -> float | None:
        """As Prometheus estimates it: linear within a bucket, and the last finite bound beyond it."""
        rank = share * self.count
        if not self.count:
            return None
        below, low = 0.0, 0.0
        for bound, reached in zip(bounds, self.cumulative, strict=False):
            if reached >= rank:
                return low + (bound - low) * (rank - below) / (reached - below) if reached > below else bound
            below, low = reached, bound
        return bounds[-1]

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


NOTHING = Spread((), 0.0)
Spreads = Mapping[Labels, Spread]


@dataclass(frozen=True, slots=True)
class Reading:
    """`requests` by route and status, `stages` by stage, `counts` by metric name and labels; `gauges` as they stand."""

    at: float
    requests: Spreads
    stages: Spreads
    batches: Spread
    counts: Mapping[str, Counts]
    gauges: Mapping[str, float]


def read(metrics: Metrics, at: float) -> Reading:
    counters = {
        "images": metrics.images,
        "refused": metrics.refused,
        "state_lookups": metrics.lookups,
        "cache_lookups": metrics.cache_lookups,
        "adaptations": metrics.adaptations,
        "busy": metrics.device_busy,
        "coalesced": metrics.coalesced,
    }
    gauges = {
        "queue_images": metrics.queue_images,
        "queue_jobs": metrics.queue_jobs,
        "queue_oldest_seconds": metrics.queue_oldest,
        "in_flight": metrics.in_flight,
        "adaptations_running": metrics.adaptations_running,
    }
    return Reading(
        at,
        _spreads(metrics.request_seconds, ("route", "status")),
        _spreads(metrics.stage_seconds, ("stage",)),
        _spreads(metrics.batch_size, ()).get((), NOTHING),
        {name: _counts(counter) for name, counter in counters.items()},
        {name: next(iter(_values(gauge, "")), 0.0) for name, gauge in gauges.items()},
    )


def _values(metric: MetricWrapperBase, ending: str) -> Iterable[float]:
    return (sample.value for family in metric.collect() for sample in family.samples if sample.name.endswith(ending))


def _counts(metric: MetricWrapperBase) -> Counts:
    return {
        tuple(sample.labels.values()): sample.value
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def _spreads(metric: MetricWrapperBase, labels: Sequence[str]) -> Spreads:
    buckets: dict[Labels, list[float]] = {}
    sums: dict[Labels, float] = {}
    for family in metric.collect():
        for sample in family.samples:
            key = tuple(sample.labels[name] for name in labels)
            if sample.name.endswith("_bucket"):
                buckets.setdefault(key, []).append(sample.value)
            elif sample.name.endswith("_sum"):
                sums[key] = sample.value
    return {key: Spread(tuple(reached), sums[key]) for key, reached in buckets.items()}


@dataclass(frozen=True, slots=True)
class Step(Reading):
    """What happened in the `seconds` up to `at`; spreads in which nothing fell are left out."""

    seconds: float

    @property
    def routes(self) -> set[str]:
        return {route for route, _ in self.requests}

    def count(self, name: str, *only: str) -> float:
        """Of all labels, or of those that begin with `only`."""
        return sum(value for labels, value in self.counts[name].items() if labels[: len(only)] == only)

    def latency(self, route: str) -> Spread:
        return merged(spread for (one, _), spread in self.requests.items() if one == route)

    def errors(self, route: str) -> float:
        return sum(spread.count for (one, code), spread in self.requests.items() if one == route and code >= "500")


def merged(spreads: Iterable[Spread]) -> Spread:
    whole = NOTHING
    for spread in spreads:
        whole = whole.plus(spread)
    return whole


def between(old: Reading, new: Reading) -> Step:
    def fell(before: Spreads, after: Spreads) -> Spreads:
        steps = {key: spread.minus(before.get(key)) for key, spread in after.items()}
        return {key: spread for key, spread in steps.items() if spread.count}

    def rose(name: str) -> Counts:
        before = old.counts[name]
        return {key: value - before.get(key, 0.0) for key, value in new.counts[name].items()}

    return Step(
        new.at,
        fell(old.requests, new.requests),
        fell(old.stages, new.stages),
        new.batches.minus(old.batches),
        {name: rose(name) for name in new.counts},
        new.gauges,
        seconds=new.at - old.at,
    )
