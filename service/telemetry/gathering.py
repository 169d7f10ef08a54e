"""One scrape that answers for many processes: what each says of itself, told apart by labels."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """All metrics of one process at one moment. Can be pickled."""

    part: str
    instance: str
    families: tuple[Metric, ...]

    @classmethod
    def of(cls, registry: CollectorRegistry, part: str, instance: str) -> Report:
        return cls(part, instance, tuple(registry.collect()))


AskAll = Callable[[], Awaitable[Sequence[Report]]]
"""All processes of one part; those that do not answer are left out."""


class Gathered(Collector):
    def __init__(self, reports: Iterable[Report]) -> None:
        self._reports = list(reports)

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for report in self._reports:
            told = {"part": report.part, "instance": report.instance}
            for one in report.families:
                family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type, one.unit))
                family.samples += [sample._replace(labels={**sample.labels, **told}) for sample in one.samples]
        return families.values()


class Replicas(Collector):
    def __init__(self, answered: Mapping[str, int]) -> None:
        self._answered = answered

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "selftpt_replicas", "Replicas of a cluster that answered this scrape.", labels=["part"]
        )
        for part, count in self._answered.items():
            family.add_metric([part], count)
        yield family


class ClusterScrape:
    """Asks everybody at once. `own` answers for this process when its part does not."""

    def __init__(self, own: Callable[[], Report], parts: Mapping[str, AskAll]) -> None:
        self._own = own
        self._parts = parts

    async def __call__(self) -> CollectorRegistry:
        told = await asyncio.gather(*(ask() for ask in self._parts.values()))
        reports = {one.instance: one for part in told for one in part}
        own = self._own()
        reports.setdefault(own.instance, own)
        counts = Counter(one.part for one in reports.values())
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Replicas({part: counts[part] for part in self._parts}))
        registry.register(Gathered(reports.values()))
        return registry
