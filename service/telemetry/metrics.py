"""Every metric of the service, with help, unit and buckets. One registry per application; no ids as labels."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from service.telemetry.collectors import Memory, MemoryCollector, TextForwards

BUCKETS = tuple(round(mark * 10.0**power, 9) for power in range(-4, 2) for mark in (1, 1.6, 2.5, 4, 6.3))[:29]
"""29 geometric steps from 0.1 ms to 40 s: five a decade, as preferred numbers, so that objectives fall on them."""

LONG_BUCKETS = tuple(0.01 * 2.0**step for step in range(20))
"""20 geometric steps from 10 ms to 87 minutes."""

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SCORES = tuple(round(0.05 * step, 2) for step in range(1, 21))

STAGES = ("receive", "resolve", "decode", "queue", "batch", "forward", "head", "answer", "encode")
"""A classify request's own, in order; `total` spans them all."""

OnStage = Callable[[str, float, float], None]
"""Told of each stage of a request: its name, its seconds, and the `time.perf_counter()` of its end."""


class Queues(Protocol):
    """What is asked at scrape time; the batcher has it."""

    @property
    def waiting(self) -> int: ...
    @property
    def jobs_waiting(self) -> int: ...
    @property
    def oldest_seconds(self) -> float: ...
    @property
    def alive(self) -> bool: ...


class Metrics:
    def __init__(self, on_stage: OnStage | None = None) -> None:
        self.registry = CollectorRegistry()
        self._on_stage = on_stage
        self._ask: Callable[[], Awaitable[CollectorRegistry]] | None = None
        ProcessCollector(registry=self.registry)
        self._traffic()
        self._answers()
        self._device()
        self._states()
        self._workers()
        self.build = Info("selftpt_build", "What is running.", registry=self.registry)
        self._begin_at_zero()

    def _traffic(self) -> None:
        self.request_seconds = self._seconds(
            "request_duration", "From first byte to last, by route.", "route", "status"
        )
        self.stage_seconds = self._seconds("stage_duration", "Time of one classify request in each stage.", "stage")
        self._stages: dict[str, Histogram] = {}  # ten look-ups by label in each request cost more than what they find
        self.in_flight = self._gauge("in_flight_requests", "Requests being worked on.")
        self.refused = self._counter("refused", "Requests and images refused, by reason or limit.", "reason")
        self.cancelled = self._counter("cancelled", "Requests whose caller hung up before the answer.")
        self.limit = self._gauge("limit", "The value of each max_* setting.", "limit")
        self.loop_tasks = self._gauge("event_loop_tasks", "Tasks on the event loop: requests, connections, own work.")
        self.loop_lag = self._seconds("event_loop_lag", "How late the event loop came to work that was due.")

    def _answers(self) -> None:
        self.images = self._counter("images", "Images by outcome: ok, undecodable, failed.", "outcome")
        self.predictions = self._counter(
            "predictions", "Answers to requests with a threshold, by outcome: accepted, rejected.", "outcome"
        )
        self.top1_score = Histogram(
            "selftpt_top1_score",
            "Softmax score of the best class, by the method that served it.",
            ("adapter",),
            buckets=SCORES,
            registry=self.registry,
        )

    def _device(self) -> None:
        self.batch_size = Histogram(
            "selftpt_batch_size", "Images per tower pass.", buckets=SIZES, registry=self.registry
        )
        self.forward_seconds = self._seconds("forward_duration", "Time of the image tower for one batch.")
        self.queue_images = self._gauge("queue_images", "Images waiting for the device.")
        self.queue_jobs = self._gauge("queue_jobs", "Class states waiting for the device.")
        self.queue_oldest = self._gauge("queue_oldest_seconds", "How long the oldest waiting image has waited.")
        self.device_busy = self._counter(
            "device_busy_seconds", "Seconds of the device thread, by work: images, class_states.", "work"
        )
        self.device_alive = self._gauge("device_alive", "1 while the device thread takes work.")
        self.device_restarts = self._counter("device_restarts", "Times the device thread died and was started again.")

    def _states(self) -> None:
        self.lookups = self._counter(
            "state_lookups", "Look-ups of class states: hit, miss, error, corrupt.", "tier", "result"
        )
        self.cache_lookups = self._counter(
            "cache_lookups", "Look-ups in caches of what the towers made: hit, miss.", "cache", "result"
        )
        self.cache_bytes = self._gauge("cache_bytes", "Bytes that such a cache holds.", "cache")
        self.hot_bytes = self._gauge("hot_bytes", "Bytes of decoded class states kept ready.")
        self.hot_states = self._gauge("hot_states", "Decoded class states kept ready.")
        self.adaptations = self._counter(
            "adaptations", "Label sets adapted, by outcome: ready, failed, cancelled.", "adapter", "outcome"
        )
        self.zero_shot_states = self._counter(
            "zero_shot_states", "Plain zero-shot class states computed, by outcome.", "outcome"
        )
        self.adaptation_seconds = self._seconds(
            "adaptation_duration", "Time of one adaptation in each phase: wait, adapt, store.", "phase", long=True
        )
        self.adaptations_running = self._gauge("adaptations_running", "Adaptations waiting for or on the device.")
        self.coalesced = self._counter("coalesced_waiters", "Requests that joined a class state being computed.")

    def _workers(self) -> None:
        self.ready = self._gauge("ready", "1 when the start, or the readiness check after it, passed.")
        self.dependency_up = self._gauge("dependency_up", "1 when the dependency answers.", "dependency")
        self.dependency_errors = self._counter(
            "dependency_errors",
            "Calls of a dependency that failed: unreachable, refused, or skipped as it was down.",
            "dependency",
            "kind",
        )
        self.heartbeat_age = self._gauge(
            "worker_heartbeat_age_seconds",
            "Since a worker last got on; 0 while it has nothing to do.",
            "worker",
        )
        self.worker_adaptations = self._counter(
            "worker_adaptations", "Adaptations of a worker for front ends: ready, failed, refused, left.", "outcome"
        )
        self.leases = self._counter("leases", "Leases on adaptations across processes, by event.", "event")

    def _begin_at_zero(self) -> None:
        """A series that begins with its first event hides that event from rates."""
        known: tuple[tuple[Counter, tuple[str, ...]], ...] = (
            (self.refused, ("queue", "deadline", "in_flight", "held_bytes", "adaptations")),
            (self.images, ("ok", "undecodable", "failed")),
            (self.predictions, ("accepted", "rejected")),
            (self.device_busy, ("images", "class_states")),
            (self.zero_shot_states, ("ready", "failed", "cancelled")),
            (self.leases, ("lost", "fenced")),
        )
        for counter, values in known:
            for value in values:
                counter.labels(value)
        for result in ("hit", "miss"):
            self.lookups.labels("hot", result)

    async def scraped(self) -> CollectorRegistry:
        """What `/metrics` answers with: this process, or all that `ask` gathers."""
        return self.registry if self._ask is None else await self._ask()

    def scrape_by(self, ask: Callable[[], Awaitable[CollectorRegistry]]) -> None:
        self._ask = ask

    def watch_queues(self, queues: Queues) -> None:
        self.queue_images.set_function(lambda: queues.waiting)
        self.queue_jobs.set_function(lambda: queues.jobs_waiting)
        self.queue_oldest.set_function(lambda: queues.oldest_seconds)
        self.device_alive.set_function(lambda: queues.alive)

    def watch_tasks(self, count: Callable[[], int]) -> None:
        self.loop_tasks.set_function(count)

    def watch_worker(self, name: str, heartbeat_age: Callable[[], float]) -> None:
        self.heartbeat_age.labels(name).set_function(heartbeat_age)

    def watch_cache(self, name: str, nbytes: Callable[[], float]) -> None:
        """Its look-ups are counted in `cache_lookups` by whoever looks up."""
        self.cache_bytes.labels(name).set_function(nbytes)
        for result in ("hit", "miss"):
            self.cache_lookups.labels(name, result)

    def watch_text_forwards(self, count: Callable[[], int]) -> None:
        self.registry.register(TextForwards(count))

    def watch_memory(self, memory: Callable[[], Memory | None]) -> None:
        self.registry.register(MemoryCollector(memory))

    def show_limits(self, limits: Mapping[str, float]) -> None:
        for name, value in limits.items():
            self.limit.labels(name).set(value)

    @contextmanager
    def stage(self, name: str, into: dict[str, float]) -> Iterator[None]:
        """Times one hand-over of a request, here and in `into` (seconds by stage)."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.record_stage(name, time.perf_counter() - began, into)

    def record_stage(self, name: str, seconds: float, into: dict[str, float], *, ended: float | None = None) -> None:
        """`ended`: the `time.perf_counter()` of its end, where that is not now."""
        into[name] = into.get(name, 0.0) + seconds
        stage = self._stages.get(name)
        if stage is None:
            stage = self._stages[name] = self.stage_seconds.labels(name)
        stage.observe(seconds)
        if self._on_stage is not None:
            self._on_stage(name, seconds, time.perf_counter() if ended is None else ended)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"selftpt_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"selftpt_{name}", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, *labels: str, long: bool = False) -> Histogram:
        buckets = LONG_BUCKETS if long else BUCKETS
        return Histogram(f"selftpt_{name}_seconds", text, labels, buckets=buckets, registry=self.registry)
