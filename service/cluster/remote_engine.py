"""An engine whose devices are elsewhere: what the front end asks of an engine, put into orders for workers.

A class state travels once to each worker that lacks it, and afterwards by its digest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch

from adapters import create_adapter
from adapters.base import Adapter, ClassState, InfoValue, LabelSet, Progress, Support
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from service.class_states.shared_work import error_of
from service.cluster.orders import AdaptOrder, BatchAnswer, BatchOrder, ImageOrder, Recipe, Refusal
from service.compute.engine import Scores, Timing
from service.compute.scoring import ImageJob
from service.compute.work_queue import ANYBODY, Asker
from service.errors import InternalError, Overloaded, ServiceError, ShuttingDown
from service.labels.plans import BuildAdapter
from service.stores.turns import Failed


class Workers(Protocol):
    """Some worker or other does it; another one when that dies. Raises `ServiceError` when none is left."""

    async def classify(self, order: BatchOrder) -> BatchAnswer: ...

    def adapt(self, order: AdaptOrder) -> AsyncIterator[float | bytes | Failed | Refusal]: ...

    async def probe(self) -> Timing: ...


@dataclass(frozen=True, slots=True, eq=False)
class FarState(ClassState):
    """A class state and the digest that workers know it by."""

    digest: str = ""


class Recipes:
    """Remembers how adapters were made. One entry per version: what users ask for is stored label sets, and few."""

    def __init__(self) -> None:
        self._options: dict[str, Mapping[str, InfoValue]] = {}

    def builder(self, backbone: Backbone) -> BuildAdapter:
        def build(name: str, options: Mapping[str, InfoValue]) -> Adapter:
            adapter = create_adapter(name, backbone, options)
            self._options[adapter.version] = dict(options)
            return adapter

        return build

    def of(self, adapter: Adapter) -> Recipe:
        return Recipe(adapter.name, self._options.get(adapter.version, {}), adapter.version)


class FarLine:
    """What this front end has asked for and not yet got."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.waiting = 0
        self.jobs_waiting = 0
        self.alive = False
        self.thread_alive = False
        self.given_up = False

    @property
    def oldest_seconds(self) -> float:
        """Workers know; they tell with each answer."""
        return 0.0


class RemoteEngine:
    def __init__(self, workers: Workers, recipes: Recipes, *, max_waiting: int) -> None:
        self._workers = workers
        self._recipes = recipes
        self.batcher = FarLine(max_waiting)

    def start(self) -> None:
        self.batcher.alive = True

    async def stop(self, *, timeout: float = 10.0) -> None:
        self.batcher.alive = False

    def heartbeat_age(self) -> float:
        return 0.0

    def admit(self, count: int, asker: Asker = ANYBODY) -> None:
        line = self.batcher
        if not line.alive:
            raise ShuttingDown
        if line.waiting + count > line.max_waiting:
            raise Overloaded(f"{line.waiting} images are with the workers, {line.max_waiting} may")

    async def classify(self, jobs: Sequence[ImageJob]) -> list[Scores | ServiceError]:
        if not jobs:
            return []
        self.admit(len(jobs))
        self.batcher.waiting += len(jobs)
        try:
            answer = await self._classified(jobs)
        finally:
            self.batcher.waiting -= len(jobs)
        return [one.error() if isinstance(one, Refusal) else _at_home(one) for one in answer.outcomes]

    async def adapt(
        self, labels: LabelSet, adapter: Adapter, progress: Progress | None = None, support: Support | None = None
    ) -> ClassState:
        order = AdaptOrder(labels, self._recipes.of(adapter), support)
        self.batcher.jobs_waiting += 1
        try:
            async for news in self._workers.adapt(order):
                if isinstance(news, bytes):
                    return state_from_bytes(news)
                if isinstance(news, Refusal):
                    raise news.error()
                if isinstance(news, Failed):
                    raise error_of(news)
                if progress is not None:
                    progress(news)
        finally:
            self.batcher.jobs_waiting -= 1
        raise InternalError("the worker ended without a result")

    async def probe(self) -> Timing:
        return await self._workers.probe()

    def place(self, state: ClassState) -> ClassState:
        if isinstance(state, FarState):
            return state
        known = {one.name: getattr(state, one.name) for one in fields(ClassState)}
        return FarState(**known, digest=hashlib.sha256(state_to_bytes(state)).hexdigest())

    async def _classified(self, jobs: Sequence[ImageJob]) -> BatchAnswer:
        """Twice for a worker that lacks a state; once more when the second order met another worker."""
        states = {id(job.state): self._far(job.state) for job in jobs}
        images = tuple(self._order(job, states[id(job.state)]) for job in jobs)
        asker, pixels = jobs[0].asker, torch.stack([job.pixels for job in jobs]).numpy()
        order = BatchOrder(pixels, jobs[0].needs, images, asker.client, asker.until - time.perf_counter())
        answer = await self._workers.classify(order)
        for _ in range(3):
            if not answer.missing:
                return answer
            brought = {state.digest: state_to_bytes(state) for state in states.values()}
            answer = await self._workers.classify(replace(order, states=brought))
        raise InternalError("a worker did not take a class state")

    def _order(self, job: ImageJob, state: FarState) -> ImageOrder:
        scored_by = None if job.adapter is None or not job.needs.scored_by else self._recipes.of(job.adapter)
        return ImageOrder(state.digest, job.top_k, job.scores, scored_by)

    def _far(self, known: ClassState) -> FarState:
        state = self.place(known)
        assert isinstance(state, FarState)
        return state


def _at_home(scores: Scores) -> Scores:
    """Moments of another machine's clock mean nothing here."""
    timing = scores.timing
    spent = timing.batch + timing.forward + timing.head
    return replace(scores, timing=replace(timing, began=time.perf_counter() - spent))
