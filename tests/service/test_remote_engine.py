"""The seam between front ends and workers, without Ray: what goes through it, once, and what comes back."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
import torch

from adapters import create_adapter
from adapters.base import PLAIN, ClassState, LabelSet, Support
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged
from service.cluster.orders import AdaptOrder, BatchAnswer, BatchOrder, Refusal
from service.cluster.remote_engine import FarState, Recipes, RemoteEngine
from service.cluster.worker import Worker
from service.compute.engine import LocalEngine, Scores, Timing
from service.compute.scoring import ImageJob
from service.errors import ComputeError, InternalError, Overloaded, ServiceError, ShuttingDown
from service.stores.turns import Failed

LABELS = LabelSet.of("cat", "dog", "horse")

T = TypeVar("T")


@dataclass
class Near:
    """Workers of this process, in turn; everything is pickled on its way, as a transport would."""

    workers: list[Worker]
    orders: list[BatchOrder] = field(default_factory=list)
    picks: Iterator[int] = field(default_factory=lambda: itertools.repeat(0))

    async def classify(self, order: BatchOrder) -> BatchAnswer:
        self.orders.append(order)
        return sent(await self.workers[next(self.picks)].classify(sent(order)))

    async def adapt(self, order: AdaptOrder) -> AsyncIterator[float | bytes | Failed | Refusal]:
        async for answer in self.workers[0].adapt(sent(order)):
            yield sent(answer)

    async def probe(self) -> Timing:
        return sent(await self.workers[0].probe())


def sent(value: T) -> T:
    copied: T = pickle.loads(pickle.dumps(value))
    return copied


@dataclass
class Rig:
    engine: RemoteEngine
    local: LocalEngine
    near: Near
    backbone: Backbone
    recipes: Recipes

    def jobs(self, state: ClassState, count: int = 3) -> list[ImageJob]:
        random = torch.Generator().manual_seed(1)
        pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
        return [ImageJob(image, state, PLAIN, top_k=2) for image in pixels]


@asynccontextmanager
async def rig_on(backbone: Backbone, *, workers: int = 1) -> AsyncIterator[Rig]:
    engines = [LocalEngine(backbone, max_batch=8, max_waiting=64, threads=1) for _ in range(workers)]
    for one in engines:
        one.start()
    near = Near([Worker(backbone, one, hot_bytes=1 << 20) for one in engines])
    recipes = Recipes()
    engine = RemoteEngine(near, recipes, max_waiting=8)
    engine.start()
    try:
        yield Rig(engine, engines[0], near, backbone, recipes)
    finally:
        for one in engines:
            await one.stop()


def answers(outcomes: list[Scores | ServiceError]) -> list[tuple[list[int], list[float]]]:
    return [(one.rows, one.scores) for one in outcomes if isinstance(one, Scores)]


async def test_scores_are_those_of_a_local_engine(tiny_backbone: Backbone) -> None:
    state = create_adapter("zero-shot", tiny_backbone).adapt(LABELS, tiny_backbone)
    async with rig_on(tiny_backbone) as rig:
        far = await rig.engine.classify(rig.jobs(state))
        near = await rig.local.classify(rig.jobs(state))
    assert answers(far) == answers(near)
    assert len(answers(far)) == 3


async def test_a_class_state_travels_once_to_each_worker(tiny_backbone: Backbone) -> None:
    state = create_adapter("zero-shot", tiny_backbone).adapt(LABELS, tiny_backbone)
    async with rig_on(tiny_backbone, workers=2) as rig:
        placed = rig.engine.place(state)
        assert isinstance(placed, FarState)
        rig.near.picks = iter([0, 1, 0, 0, 1, 0, 1, 0])
        for _ in range(6):
            assert len(answers(await rig.engine.classify(rig.jobs(placed)))) == 3
        assert [len(order.states) for order in rig.near.orders] == [0, 1, 0, 1, 0, 0, 0, 0]


async def test_an_adaptation_is_that_of_a_local_engine_and_tells_its_progress(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        adapter = rig.recipes.builder(tiny_backbone)("self-tpt", {"steps": 2})
        told: list[float] = []
        far = await rig.engine.adapt(LABELS, adapter, told.append)
        near = await rig.local.adapt(LABELS, adapter)
    assert torch.equal(far.weights, near.weights)
    assert told == sorted(told)
    assert told


async def test_auto_with_support_images_is_made_again_by_the_worker(tiny_backbone: Backbone) -> None:
    from adapters.auto import Auto
    from adapters.registry import METHODS

    offered = [name for name, facts in METHODS.items() if facts.support]
    auto = Auto(lambda name, options: create_adapter(name, tiny_backbone, options), offered)
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    async with rig_on(tiny_backbone) as rig:
        state = await rig.engine.adapt(LABELS, auto, None, Support(pixels, torch.tensor([0, 0, 1, 1, 2, 2])))
    assert state.version == auto.version


async def test_what_an_adapter_refuses_is_raised_here(tiny_backbone: Backbone) -> None:
    class Diverging(Worker):
        async def adapt(self, order: AdaptOrder) -> AsyncIterator[float | bytes | Failed | Refusal]:
            yield 0.5
            yield Failed("AdaptationDiverged", "the loss became nan")

    async with rig_on(tiny_backbone) as rig:
        rig.near.workers = [Diverging(tiny_backbone, rig.local, hot_bytes=1)]
        with pytest.raises(AdaptationDiverged, match="nan"):
            await rig.engine.adapt(LABELS, create_adapter("zero-shot", tiny_backbone))


async def test_a_worker_of_another_version_refuses_to_adapt(tiny_backbone: Backbone) -> None:
    adapter = copy.copy(create_adapter("zero-shot", tiny_backbone))
    adapter.version = "of another release"
    async with rig_on(tiny_backbone) as rig:
        with pytest.raises(InternalError, match="another version"):
            await rig.engine.adapt(LABELS, adapter)


async def test_more_images_than_may_wait_are_refused_before_they_are_sent(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        with pytest.raises(Overloaded, match="8 may"):
            rig.engine.admit(9)
        await rig.engine.stop()
        with pytest.raises(ShuttingDown):
            rig.engine.admit(1)


async def test_a_stopped_worker_answers_each_image_with_its_reason(tiny_backbone: Backbone) -> None:
    state = create_adapter("zero-shot", tiny_backbone).adapt(LABELS, tiny_backbone)
    async with rig_on(tiny_backbone) as rig:
        await rig.local.stop()
        outcomes = await rig.engine.classify(rig.jobs(state))
    assert [type(one) for one in outcomes] == [ShuttingDown] * 3


@pytest.mark.parametrize("error", [ComputeError("nan"), Overloaded("full", retry_after=7), ShuttingDown()])
def test_refusals_keep_their_kind_words_and_headers(error: ServiceError) -> None:
    again = sent(Refusal.of(error)).error()
    assert (type(again), again.detail, again.headers) == (type(error), error.detail, error.headers)


async def test_the_probe_goes_through_a_worker(tiny_backbone: Backbone) -> None:
    async with rig_on(tiny_backbone) as rig:
        assert (await rig.engine.probe()).size == 1
