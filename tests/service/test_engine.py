"""The engine on a tiny real backbone: scoring equals the plain formula, failures stay with their image."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adapters import create_adapter
from adapters.base import (
    PLAIN,
    VISUAL_PROMPTS,
    ClassState,
    ImageNeeds,
    LabelSet,
    Progress,
    Support,
    cosine_logits,
    independent_logits,
    needs_of,
)
from adapters.clip import Backbone
from service.compute.engine import LocalEngine, Scores
from service.compute.levels import level_of
from service.compute.scoring import ImageJob, rank
from service.errors import ComputeError, ServiceError


@asynccontextmanager
async def engine_on(backbone: Backbone) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(backbone, max_batch=8, max_waiting=64, threads=1)
    engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def state_of(backbone: Backbone, *names: str) -> ClassState:
    return create_adapter("zero-shot", backbone).adapt(LabelSet.of(*names), backbone)


def picture(seed: int) -> Tensor:
    return torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


async def test_scores_are_the_softmax_of_the_cosine_logits(tiny_backbone: Backbone) -> None:
    state = state_of(tiny_backbone, "cat", "dog", "rocket")
    async with engine_on(tiny_backbone) as engine:
        (found,) = await engine.classify([ImageJob(picture(1), state, PLAIN, top_k=3)])
    assert isinstance(found, Scores)
    expected = cosine_logits(tiny_backbone.image.encode(picture(1)[None]), state).softmax(dim=1)[0]
    assert found.rows == expected.argsort(descending=True).tolist()
    assert found.scores == pytest.approx(expected.sort(descending=True).values.tolist(), rel=1e-4)


async def test_independent_scores_judge_each_class_on_its_own(tiny_backbone: Backbone) -> None:
    state = state_of(tiny_backbone, "cat", "dog")
    async with engine_on(tiny_backbone) as engine:
        (found,) = await engine.classify([ImageJob(picture(1), state, PLAIN, top_k=2, scores="independent")])
    assert isinstance(found, Scores)
    expected = independent_logits(tiny_backbone.image.encode(picture(1)[None]), state).sigmoid()[0]
    assert sorted(found.scores) == pytest.approx(sorted(expected.tolist()), rel=1e-4)


async def test_one_batch_serves_many_label_sets(tiny_backbone: Backbone) -> None:
    states = [state_of(tiny_backbone, f"a{i}", f"b{i}") for i in range(6)]
    jobs = [ImageJob(picture(i), state, PLAIN, top_k=1 + i % 2) for i, state in enumerate(states)]
    async with engine_on(tiny_backbone) as engine:
        mixed = await engine.classify(jobs)
        alone = [(await engine.classify([job]))[0] for job in jobs]
    for one, other in zip(mixed, alone, strict=True):
        assert isinstance(one, Scores)
        assert isinstance(other, Scores)
        assert one.rows == other.rows
        assert one.cosines == pytest.approx(other.cosines, abs=1e-5)
    assert isinstance(mixed[0], Scores)
    assert mixed[0].timing.size == 6


async def test_an_image_of_a_wrong_shape_fails_alone(tiny_backbone: Backbone) -> None:
    state = state_of(tiny_backbone, "cat", "dog")
    shapes = [picture(1), torch.zeros(3, 5, 5, dtype=torch.uint8), picture(2)]
    async with engine_on(tiny_backbone) as engine:
        found = await engine.classify([ImageJob(pixels, state, PLAIN, top_k=1) for pixels in shapes])
    assert [type(one) for one in found] == [Scores, ComputeError, Scores]


def test_features_that_are_not_numbers_fail_alone(tiny_backbone: Backbone) -> None:
    state = state_of(tiny_backbone, "cat", "dog")
    features = torch.nn.functional.normalize(torch.randn(2, 64), dim=1)
    features[1, 3] = torch.nan
    jobs = [ImageJob(picture(i), state, PLAIN, top_k=1) for i in range(2)]
    first, second = rank(features, jobs)
    assert first is not None
    assert second is None


async def test_adapting_on_the_device_thread_reports_progress_and_serves_images(tiny_backbone: Backbone) -> None:
    adapter = create_adapter("self-tpt", tiny_backbone, {"steps": 2})
    labels, seen = LabelSet.of("cat", "dog", "rocket"), list[tuple[float, str]]()
    async with engine_on(tiny_backbone) as engine:
        state = await engine.adapt(labels, adapter, lambda f: seen.append((f, threading.current_thread().name)))
        (found,) = await engine.classify([ImageJob(picture(1), state, PLAIN, top_k=1)])
    assert isinstance(found, Scores)
    assert {name for _, name in seen} == {"device"}
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)


class Brightest:
    """Scores images itself: class 0 for bright first views, class 1 for dark ones; notes what it was given."""

    name, version = "brightest", "1"

    def __init__(self, views: int = 1) -> None:
        self.views = views
        self.batches: list[tuple[int, ...]] = []

    def needs(self, state: ClassState) -> ImageNeeds:
        return ImageNeeds(views=self.views, scored_by=self.name)

    def adapt(
        self, labels: LabelSet, backbone: Backbone, support: Support | None = None, progress: Progress | None = None
    ) -> ClassState:
        return state_of(backbone, *labels.names)

    def logits(self, pixels: Tensor, state: ClassState, backbone: Backbone) -> Tensor:
        self.batches.append(tuple(pixels.shape))
        light = pixels.float().flatten(1).mean(dim=1) / 255
        if float(light.min()) < 0.01:
            raise RuntimeError("too dark to see")
        return torch.stack([light, 1 - light], dim=1) * 20


def bright(level: int, *views: int) -> Tensor:
    return torch.full((*views, 3, 32, 32), level, dtype=torch.uint8)


async def test_a_method_that_scores_images_itself_gets_those_of_one_state_together(tiny_backbone: Backbone) -> None:
    adapter, states = Brightest(), [state_of(tiny_backbone, "day", "night") for _ in range(2)]
    needs = adapter.needs(states[0])
    jobs = [ImageJob(bright(250 if n % 2 else 30), states[n // 2], needs, 2, adapter=adapter) for n in range(4)]
    async with engine_on(tiny_backbone) as engine:
        found = await engine.classify(jobs)
    assert [one.rows[0] for one in found if isinstance(one, Scores)] == [1, 0, 1, 0]
    assert adapter.batches == [(2, 3, 32, 32)] * 2


async def test_a_failure_of_such_a_method_stays_with_its_image(tiny_backbone: Backbone) -> None:
    adapter, state = Brightest(), state_of(tiny_backbone, "day", "night")
    levels = (200, 0, 100)
    jobs = [ImageJob(bright(level), state, adapter.needs(state), 1, adapter=adapter) for level in levels]
    async with engine_on(tiny_backbone) as engine:
        found = await engine.classify(jobs)
    assert [type(one) for one in found] == [Scores, ComputeError, Scores]


async def test_images_of_many_views_make_batches_of_as_many_views(tiny_backbone: Backbone) -> None:
    adapter, state = Brightest(views=4), state_of(tiny_backbone, "day", "night")
    jobs = [ImageJob(bright(200, 4), state, adapter.needs(state), 1, adapter=adapter) for _ in range(6)]
    async with engine_on(tiny_backbone) as engine:  # batches of 8 images
        await engine.classify(jobs)
    assert {shape[1:] for shape in adapter.batches} == {(4, 3, 32, 32)}
    assert max(shape[0] for shape in adapter.batches) == 2


async def test_each_image_runs_with_the_visual_prompts_of_its_own_label_set(tiny_backbone: Backbone) -> None:
    width = tiny_backbone.image.token_width
    draw = torch.Generator().manual_seed(0)
    plain = state_of(tiny_backbone, "cat", "dog")
    states = [replace(plain, extras={VISUAL_PROMPTS: torch.randn(1, 2, width, generator=draw)}) for _ in range(2)]
    jobs = [ImageJob(picture(5), state, needs_of(state), 2) for state in states]
    async with engine_on(tiny_backbone) as engine:
        together = await engine.classify([*jobs, jobs[0]])
        alone = [(await engine.classify([job]))[0] for job in jobs]
    for one, other in zip(together, [*alone, alone[0]], strict=True):
        assert isinstance(one, Scores)
        assert isinstance(other, Scores)
        assert one.cosines == pytest.approx(other.cosines, abs=1e-5)
    assert isinstance(together[0], Scores)
    assert together[0].timing.size == 3
    assert together[0] != together[1]


async def test_the_probe_is_a_real_batch_and_tells_when_the_device_is_gone(tiny_backbone: Backbone) -> None:
    async with engine_on(tiny_backbone) as engine:
        assert (await engine.probe()).forward > 0
        await engine.stop()
        with pytest.raises(ServiceError):
            await engine.probe()


def test_zero_shot_goes_first_and_small_before_large(tiny_backbone: Backbone) -> None:
    zero_shot, self_tpt = (create_adapter(name, tiny_backbone) for name in ("zero-shot", "self-tpt"))
    small, large = LabelSet.of("a", "b"), LabelSet.of(*map(str, range(129)))
    assert level_of(large, zero_shot) < level_of(small, self_tpt) < level_of(large, self_tpt)
