"""What every adapter of the registry promises, whatever its method. New entries are covered as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters import METHOD_NAMES, create_adapter
from adapters.base import (
    Adapter,
    ClassName,
    ClassState,
    ImageAdapter,
    InfoValue,
    LabelSet,
    Progress,
    Support,
    cosine_logits,
)
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from adapters.errors import AdaptationCancelled, LabelSetError, OptionError, StateError, SupportError
from adapters.registry import METHODS, describe_methods
from adapters.vision.tower import ImageTower

LABELS = LabelSet.of("cat", "dog", "red fox", "teapot", "bus")
SMALL: Mapping[str, InfoValue] = {
    "steps": 2, "chunk": 2, "class_batch": 4, "batch": 4, "views": 2, "augmented_views": 1, "check_every": 1,
    "layers": 2, "context": 4, "visual_prompts": 2,
}  # fmt: skip
"""Wherever a method has an option of this name, the tests give it this value."""

SPECIAL: Mapping[str, Mapping[str, InfoValue]] = {}
"""Options of single methods, where the values above do not fit."""

LEARNS = tuple(name for name, method in METHODS.items() if method.support)
ANY_COMPANY = ("zero-shot", "self-tpt")
"""Methods in which a class's own texts do not move the rows of the others."""


def options_of(method: str) -> dict[str, InfoValue]:
    found: dict[str, InfoValue] = next(entry["options"] for entry in describe_methods() if entry["name"] == method)
    return found


def small_options(method: str) -> dict[str, InfoValue]:
    numbers = {key for key, default in options_of(method).items() if type(default) is int}
    return {key: value for key, value in SMALL.items() if key in numbers} | dict(SPECIAL.get(method, {}))


def small_support(labels: LabelSet, per_class: int = 2) -> Support:
    generator = torch.Generator().manual_seed(len(labels.classes))
    rows = torch.arange(len(labels.classes)).repeat_interleave(per_class)
    pixels = torch.randint(0, 256, (len(rows), 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Support(pixels, rows, tuple("a small picture" if n % 3 else None for n in range(len(rows))))


def adapted(
    adapter: Adapter, backbone: Backbone, labels: LabelSet = LABELS, progress: Progress | None = None
) -> ClassState:
    """With support images if the method learns from them."""
    return adapter.adapt(labels, backbone, small_support(labels) if adapter.name in LEARNS else None, progress)


def scores(adapter: Adapter, state: ClassState, backbone: Backbone, images: int = 3) -> Tensor:
    """Logits of some fixed images."""
    views = adapter.needs(state).views
    pixels = torch.randint(0, 256, (images, views, 3, 32, 32), generator=torch.Generator().manual_seed(9))
    pixels = pixels.to(torch.uint8) if views > 1 else pixels.to(torch.uint8)[:, 0]
    if isinstance(adapter, ImageAdapter):
        return adapter.logits(pixels, state, backbone)
    prompts = state.visual_prompts
    features = backbone.image.encode(pixels) if prompts is None else backbone.image.encode_prompted(pixels, prompts)
    return cosine_logits(features, state)


@pytest.fixture(params=METHOD_NAMES)
def adapter(request: pytest.FixtureRequest, tiny_backbone: Backbone) -> Adapter:
    return create_adapter(request.param, tiny_backbone, small_options(request.param))


@pytest.fixture(params=LEARNS)
def learner(request: pytest.FixtureRequest, tiny_backbone: Backbone) -> Adapter:
    return create_adapter(request.param, tiny_backbone, small_options(request.param))


def test_one_finite_unit_row_per_class(adapter: Adapter, tiny_backbone: Backbone) -> None:
    state = adapted(adapter, tiny_backbone)
    assert state.weights.shape == (5, tiny_backbone.embed_dim)
    assert torch.allclose(state.weights.norm(dim=-1), torch.ones(5), atol=1e-5)
    assert (state.adapter, state.version) == (adapter.name, adapter.version)
    assert all(isinstance(value, (str, int, float, bool)) for value in state.info.values())
    assert scores(adapter, state, tiny_backbone).shape == (3, 5)
    assert scores(adapter, state, tiny_backbone).isfinite().all()


def test_adapting_twice_gives_the_same_state(adapter: Adapter, tiny_backbone: Backbone) -> None:
    first, second = adapted(adapter, tiny_backbone), adapted(adapter, tiny_backbone)
    assert torch.equal(first.weights, second.weights)
    assert first.extras.keys() == second.extras.keys()
    assert all(torch.equal(value, second.extras[key]) for key, value in first.extras.items())


def test_a_state_survives_bytes_and_scores_the_same(adapter: Adapter, tiny_backbone: Backbone) -> None:
    state = adapted(adapter, tiny_backbone)
    back = state_from_bytes(state_to_bytes(state))
    assert torch.equal(back.weights, state.weights)
    assert (back.info, back.logit_scale, back.version) == (state.info, state.logit_scale, state.version)
    assert sorted(back.extras) == sorted(state.extras)
    assert {adapter.needs(back): 1} == {adapter.needs(state): 1}
    assert torch.equal(scores(adapter, back, tiny_backbone), scores(adapter, state, tiny_backbone))


def test_a_row_of_logits_depends_on_its_own_image_only(adapter: Adapter, tiny_backbone: Backbone) -> None:
    state = adapted(adapter, tiny_backbone)
    together = scores(adapter, state, tiny_backbone)
    assert torch.allclose(scores(adapter, state, tiny_backbone, images=1)[0], together[0], rtol=1e-4, atol=1e-4)


def test_one_class_works_or_is_refused(adapter: Adapter, tiny_backbone: Backbone) -> None:
    try:
        state = adapted(adapter, tiny_backbone, LabelSet.of("cat"))
    except (LabelSetError, SupportError):
        return
    assert state.weights.shape[0] == 1
    assert scores(adapter, state, tiny_backbone).isfinite().all()


def test_aliases_and_descriptions_count_for_their_class(adapter: Adapter, tiny_backbone: Backbone) -> None:
    plain = adapted(adapter, tiny_backbone, LabelSet.of("cat", "dog"))
    told = LabelSet((ClassName("cat"), ClassName("dog", ("hound",), ("an animal that barks",))))
    weights = adapted(adapter, tiny_backbone, told).weights
    assert not torch.allclose(weights[1], plain.weights[1], atol=1e-3)
    if adapter.name in ANY_COMPANY:
        only = LabelSet((ClassName("cat"), ClassName("dog", descriptions=("an animal that barks",))))
        assert torch.equal(adapted(adapter, tiny_backbone, only).weights[0], plain.weights[0])


def test_progress_rises_and_its_exception_ends_the_adaptation(adapter: Adapter, tiny_backbone: Backbone) -> None:
    told: list[float] = []
    adapted(adapter, tiny_backbone, progress=told.append)
    assert told == sorted(told)
    assert 0 < told[-1] <= 1

    def cancel(_: float) -> None:
        raise AdaptationCancelled

    with pytest.raises(AdaptationCancelled):
        adapted(adapter, tiny_backbone, progress=cancel)


def test_learning_in_single_precision_stays_finite_on_a_bf16_backbone(
    adapter: Adapter, tiny_bf16_backbone: Backbone
) -> None:
    state = adapted(adapter, tiny_bf16_backbone)
    assert state.weights.isfinite().all()
    assert all(value.dtype == torch.float32 for value in state.extras.values() if value.is_floating_point())
    assert scores(adapter, state, tiny_bf16_backbone).isfinite().all()


class Untouched:
    """An image tower that tells what it is, and must not be run."""

    def __init__(self, tower: ImageTower) -> None:
        self._tower = tower

    def __getattr__(self, name: str) -> Any:
        assert name in ("promptable", "token_width", "depth", "tokens_version", "device", "dtype"), f"{name} was used"
        return getattr(self._tower, name)


def refuses(adapter: Adapter, backbone: Backbone, labels: LabelSet, support: Support | None) -> None:
    """Raises before either tower has run."""
    guarded = replace(backbone, image=cast("ImageTower", Untouched(backbone.image)))
    before = backbone.text.prompts_encoded
    with pytest.raises((LabelSetError, SupportError)) as caught:
        adapter.adapt(labels, guarded, support)
    assert isinstance(caught.value, (LabelSetError, SupportError))
    assert caught.value.field
    assert backbone.text.prompts_encoded == before


def test_a_name_that_is_too_long_is_refused_before_any_pass(adapter: Adapter, tiny_backbone: Backbone) -> None:
    labels = LabelSet.of("cat", "very " * 30)
    refuses(adapter, tiny_backbone, labels, small_support(labels))


def test_names_given_twice_never_reach_an_adapter() -> None:
    with pytest.raises(LabelSetError):
        LabelSet.of("cat", "Cat")


def test_support_that_is_missing_or_does_not_fit_is_refused_before_any_pass(
    learner: Adapter, tiny_backbone: Backbone
) -> None:
    good = small_support(LABELS)
    stranger = good.labels.clone()
    stranger[0] = 5
    refuses(learner, tiny_backbone, LABELS, None)
    refuses(learner, tiny_backbone, LABELS, Support(good.pixels[:0], good.labels[:0]))
    refuses(learner, tiny_backbone, LABELS, Support(good.pixels[2:], good.labels[2:]))
    refuses(learner, tiny_backbone, LABELS, Support(good.pixels, stranger))


def test_one_image_per_class_is_enough(learner: Adapter, tiny_backbone: Backbone) -> None:
    state = learner.adapt(LABELS, tiny_backbone, small_support(LABELS, per_class=METHODS[learner.name].support))
    assert state.info["support_images"] == 5 * METHODS[learner.name].support
    assert "heldout_top1" not in state.info or METHODS[learner.name].support > 1


def test_a_fit_tells_its_figures(learner: Adapter, tiny_backbone: Backbone) -> None:
    info = adapted(learner, tiny_backbone).info
    assert {"steps", "seconds", "loss_first", "loss_last", "support_images", "heldout_images"} <= info.keys()
    assert info["heldout_images"] == 5
    assert 0 <= float(info["heldout_top1"]) <= 1
    assert 0 <= float(info["heldout_top1_zero_shot"]) <= 1


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_describes_itself_as_plain_data(method: str) -> None:
    entry = next(entry for entry in describe_methods() if entry["name"] == method)
    assert json.loads(json.dumps(entry)) == entry
    assert entry["summary"].endswith(".")
    assert entry["needs"]["support"] == METHODS[method].support


def test_unknown_methods_and_options_are_refused_by_name(tiny_backbone: Backbone) -> None:
    for name, options, field in [
        ("magic", {}, "adapter"),
        ("self-tpt", {"stepz": 1}, "options.stepz"),
        ("self-tpt", {"steps": "many"}, "options.steps"),
        ("self-tpt", {"steps": 10**9}, "options"),
        ("self-tpt", {"learning_rate": float("nan")}, "options"),
        ("zero-shot", {"ensemble": 1}, "options.ensemble"),
    ]:
        with pytest.raises(OptionError) as caught:
            create_adapter(name, tiny_backbone, options)  # type: ignore[arg-type]  # mixed literals
        assert caught.value.field == field


@pytest.mark.parametrize("method", [name for name in METHOD_NAMES if "seed" in options_of(name)])
def test_settings_decide_the_version(method: str, tiny_backbone: Backbone) -> None:
    versions = {create_adapter(method, tiny_backbone, {"seed": n}).version for n in (1, 2, 2)}
    assert len(versions) == 2


def damaged(data: bytes) -> list[bytes]:
    return [b"", data[:10], data[:-1], data + b"x", b"PICK" + data[4:], data[:40] + bytes([data[40] ^ 1]) + data[41:]]


def test_damaged_state_bytes_are_refused(tiny_backbone: Backbone) -> None:
    state = adapted(create_adapter("zero-shot", tiny_backbone), tiny_backbone)
    for data in damaged(state_to_bytes(state)):
        with pytest.raises(StateError):
            state_from_bytes(data)


def test_a_state_whose_tensors_share_memory_is_stored_all_the_same() -> None:
    weights = F.normalize(torch.ones(2, 4), dim=-1)
    state = ClassState("zero-shot", "v", weights, weights[0], logit_scale=1.0)
    assert torch.equal(state_from_bytes(state_to_bytes(state)).background, weights[0])
