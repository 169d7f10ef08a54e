"""Every metric of the service, with help, unit and buckets. One registry per application; no ids as labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS = tuple(round(1e-4 * (3e5 ** (1 / 29)) ** step, 7) for step in range(30))
"""30 geometric steps from 0.1 ms to 30 s."""

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Queues(Protocol):
    """What is asked at scrape time; the batcher has it."""

    @property
    def waiting(self) -> int: ...
    @property
    def jobs_waiting(self) -> int: ...
    @property
    def oldest_seconds(self) -> float: ...


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._traffic()
        self._device()
        self._states()
        self.build = Info("selftpt_build", "What is running.", registry=self.registry)
        self.ready = self._gauge("ready", "1 when the last readiness check passed.")
        self.dependency_up = self._gauge("dependency_up", "1 when the dependency answers.", "dependency")

    def _traffic(self) -> None:
        self.request_seconds = self._seconds(
            "request_duration", "From first byte to last, by route.", "route", "status"
        )
        self.stage_seconds = self._seconds("stage_duration", "Time of one request in each stage.", "stage")
        self.in_flight = self._gauge("in_flight_requests", "Requests being worked on.")
        self.refused = self._counter("refused", "Requests and images refused, by reason or limit.", "reason")
        self.cancelled = self._counter("cancelled", "Requests whose caller hung up before the answer.")
        self.images = self._counter("images", "Images by outcome: ok, undecodable, failed.", "outcome")
        self.predictions = self._counter("predictions", "Results by outcome: accepted, rejected.", "outcome")

    def _device(self) -> None:
        self.batch_size = Histogram(
            "selftpt_batch_size", "Images per tower pass.", buckets=SIZES, registry=self.registry
        )
        self.queue_images = self._gauge("queue_images", "Images waiting for the device.")
        self.queue_jobs = self._gauge("queue_jobs", "Class states waiting for the device.")
        self.queue_oldest = self._gauge("queue_oldest_seconds", "How long the oldest waiting image has waited.")

    def _states(self) -> None:
        self.lookups = self._counter(
            "state_lookups", "Look-ups of class states: hit, miss, error, corrupt.", "tier", "result"
        )
        self.hot_bytes = self._gauge("hot_bytes", "Bytes of decoded class states kept ready.")
        self.hot_states = self._gauge("hot_states", "Decoded class states kept ready.")
        self.adaptations = self._counter(
            "adaptations", "Label sets adapted, by outcome: ready, failed, cancelled.", "adapter", "outcome"
        )
        self.zero_shot_states = self._counter(
            "zero_shot_states", "Plain zero-shot class states computed, by outcome.", "outcome"
        )
        self.adaptation_seconds = self._seconds(
            "adaptation_duration", "Time of one adaptation in each phase: wait, adapt, store.", "phase"
        )
        self.adaptations_running = self._gauge("adaptations_running", "Adaptations waiting for or on the device.")
        self.coalesced = self._counter("coalesced_waiters", "Requests that joined a class state being computed.")

    def watch_queues(self, queues: Queues) -> None:
        self.queue_images.set_function(lambda: queues.waiting)
        self.queue_jobs.set_function(lambda: queues.jobs_waiting)
        self.queue_oldest.set_function(lambda: queues.oldest_seconds)

    def watch_text_forwards(self, count: Callable[[], int]) -> None:
        self.registry.register(_TextForwards(count))

    @contextmanager
    def stage(self, name: str, into: dict[str, float]) -> Iterator[None]:
        """Times one hand-over of a request, here and in `into` (seconds by stage)."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.record_stage(name, time.perf_counter() - began, into)

    def record_stage(self, name: str, seconds: float, into: dict[str, float]) -> None:
        into[name] = into.get(name, 0.0) + seconds
        self.stage_seconds.labels(name).observe(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"selftpt_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"selftpt_{name}", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"selftpt_{name}_seconds", text, labels, buckets=BUCKETS, registry=self.registry)


class _TextForwards(Collector):
    """The text tower counts for itself; read at scrape time."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("selftpt_text_forwards", "Prompts passed through the text tower.", self._count())
