"""CoOp: what it starts from, that its chunks are exact, that it learns, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adapters.base import ClassName, LabelSet, Support
from adapters.clip import Backbone
from adapters.errors import LabelSetError, SupportError
from adapters.learning.few_shot import SupportImages, plain_rows
from adapters.methods.coop import CoOp, CoOpSettings, Seen, fit_context, start_context, step_classes
from adapters.quantization.through import AsLearnt
from adapters.text.prompted_classes import PromptedClasses

LABELS = LabelSet.of("cat", "dog", "red fox", "teapot", "bus")


def support(per_class: int = 4, classes: int = 5) -> Support:
    """Noise around one colour per class."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(classes).repeat_interleave(per_class)
    colours = torch.randint(0, 200, (classes, 3, 1, 1), generator=generator)
    noise = torch.randint(0, 56, (len(labels), 3, 32, 32), generator=generator)
    return Support((colours[labels] + noise).to(torch.uint8), labels)


def prompts_of(backbone: Backbone, labels: LabelSet = LABELS, *, chunk: int = 64, context: int = 4) -> PromptedClasses:
    return PromptedClasses(backbone.text, labels, context=context, position="end", chunk=chunk)


def test_without_a_step_the_template_gives_plain_zero_shot(tiny_backbone: Backbone) -> None:
    state = CoOp(CoOpSettings(steps=0), tiny_backbone).adapt(LABELS, tiny_backbone, support())
    assert torch.allclose(state.weights, plain_rows(LABELS, tiny_backbone), atol=1e-5)
    assert state.info["heldout_top1"] == state.info["heldout_top1_zero_shot"]


@pytest.mark.parametrize("class_specific", [False, True])
def test_chunks_give_the_gradient_of_the_whole(tiny_backbone: Backbone, class_specific: bool) -> None:
    def gradient(chunk: int) -> Tensor:
        ctx = start_context(tiny_backbone, CoOpSettings(class_specific=class_specific), 5).requires_grad_()
        prompts = prompts_of(tiny_backbone, chunk=chunk)
        prompts.backward(ctx, torch.tensor([0, 1, 3, 4]), lambda rows: (4 * rows[:2] @ rows[2:].T).exp().sum())
        assert ctx.grad is not None
        return ctx.grad

    whole = gradient(64)
    assert torch.allclose(gradient(2), whole, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))


@pytest.mark.parametrize(
    "settings",
    [
        CoOpSettings(),
        CoOpSettings(context=8, position="middle"),
        CoOpSettings(position="front", start="random"),
        CoOpSettings(class_specific=False, start="source"),
        CoOpSettings(class_batch=3),
    ],
)
def test_it_learns_to_tell_the_support_images_apart(tiny_backbone: Backbone, settings: CoOpSettings) -> None:
    settings = replace(settings, steps=40, learning_rate=0.02, views=1, heldout=0.0)
    state = CoOp(settings, tiny_backbone).adapt(LABELS, tiny_backbone, support())
    assert state.info["loss_last"] < 0.8 * float(state.info["loss_first"])  # type: ignore[operator]  # floats
    assert "heldout_top1" not in state.info
    assert state.extras["context"].dtype == torch.float32


def test_words_stand_next_to_the_name(tiny_backbone: Backbone) -> None:
    words = tiny_backbone.text.embed_tokens(tiny_backbone.text.tokens("a photo of a"))
    shared = CoOpSettings(class_specific=False)
    assert torch.equal(start_context(tiny_backbone, replace(shared, context=6), 5)[2:], words)
    assert torch.equal(start_context(tiny_backbone, replace(shared, context=6, position="front"), 5)[:4], words)
    assert torch.equal(start_context(tiny_backbone, replace(shared, context=2), 5), words[2:])
    assert torch.equal(start_context(tiny_backbone, CoOpSettings(), 5), words.expand(5, -1, -1))


def test_a_step_over_many_classes_keeps_those_of_its_images() -> None:
    sampler = torch.Generator().manual_seed(0)
    chosen = step_classes(torch.tensor([90, 7, 90]), 100, 10, sampler)
    assert len(chosen) == 10
    assert {7, 90} <= set(chosen.tolist())
    assert torch.equal(chosen, chosen.sort().values)
    assert len(step_classes(torch.arange(20), 100, 10, sampler)) == 20


def test_descriptions_join_the_row_of_their_class(tiny_backbone: Backbone) -> None:
    told = LabelSet((ClassName("cat"), ClassName("dog", aliases=("hound",), descriptions=("it barks",))))
    text = tiny_backbone.text
    names, row = text.encode_texts(["a photo of a dog.", "a photo of a hound."]), text.encode_texts(["it barks"])[0]
    expected = torch.nn.functional.normalize(torch.nn.functional.normalize(names.mean(0), dim=0) + row, dim=0)
    prompts = prompts_of(tiny_backbone, told)
    assert torch.allclose(prompts.rows(start_context(tiny_backbone, CoOpSettings(), 2))[1], expected, atol=1e-5)


def test_other_classes_are_served_by_what_was_learnt(tiny_backbone: Backbone) -> None:
    for class_specific in (False, True):
        coop = CoOp(CoOpSettings(steps=3, views=0, class_specific=class_specific), tiny_backbone)
        state = coop.adapt(LABELS, tiny_backbone, support())
        context = state.extras["context"].mean(dim=0) if class_specific else state.extras["context"]
        other = LabelSet.of("owl", "spoon")
        weights = coop.extend(state, other, tiny_backbone).weights
        assert torch.allclose(weights, prompts_of(tiny_backbone, other).rows(context), atol=1e-6)


class Rounded(AsLearnt):
    """Counts what passes through it."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, ctx: Tensor) -> Tensor:
        self.seen += 1
        return ctx + (ctx.detach().round(decimals=2) - ctx.detach())

    def seal(self, ctx: Tensor) -> Tensor:
        return ctx.round(decimals=2)


def test_what_stands_between_is_passed_once_a_step_and_sealed_at_the_end(tiny_backbone: Backbone) -> None:
    made: list[Rounded] = []

    def through() -> Rounded:
        made.append(Rounded())
        return made[-1]

    settings = CoOpSettings(steps=3, chunk=2, views=0)
    state = CoOp(settings, tiny_backbone, through).adapt(LABELS, tiny_backbone, support())
    assert made[0].seen == 3
    context = state.extras["context"]
    assert torch.equal(context, context.round(decimals=2))
    assert torch.allclose(state.weights, prompts_of(tiny_backbone).rows(context), atol=1e-6)


def test_one_class_has_nothing_to_be_told_from(tiny_backbone: Backbone) -> None:
    with pytest.raises(LabelSetError):
        CoOp(CoOpSettings(), tiny_backbone).adapt(LabelSet.of("cat"), tiny_backbone, support(classes=1))


def test_a_name_that_leaves_no_room_for_the_context_is_refused(tiny_backbone: Backbone) -> None:
    before = tiny_backbone.text.prompts_encoded
    labels = LabelSet.of("cat", "very " * 8 + "red fox")
    with pytest.raises(LabelSetError, match="tokens"):
        CoOp(CoOpSettings(context=16), tiny_backbone).adapt(labels, tiny_backbone, support(classes=2))
    with pytest.raises(SupportError):
        CoOp(CoOpSettings(), tiny_backbone).adapt(labels, tiny_backbone, support(classes=1))
    assert tiny_backbone.text.prompts_encoded == before


def test_a_penalty_and_visual_parameters_take_part(tiny_backbone: Backbone) -> None:
    settings, data = (
        CoOpSettings(steps=2, heldout=0.0),
        SupportImages.of(support(), tiny_backbone, views=0, heldout=0.0, seed=0),
    )
    shift = torch.zeros(tiny_backbone.embed_dim, requires_grad=True)

    def images(rows: Tensor) -> Tensor:
        return data.features_NVD[rows, 0] + shift

    def penalty(seen: Seen) -> Tensor:
        return seen.features_BD.square().sum() + seen.rows_cD.sum() * 0

    ctx = start_context(tiny_backbone, settings, 5)
    fit_context(ctx, prompts_of(tiny_backbone), images, data, settings, logit_scale=10.0, penalty=penalty,
                visual=[{"params": [shift], "lr": 0.5}])  # fmt: skip
    assert float(shift.detach().abs().max()) > 0.05


def test_the_anchor_holds_the_rows_near_plain_zero_shot(tiny_backbone: Backbone) -> None:
    plain = plain_rows(LABELS, tiny_backbone)

    def strayed(anchor: float) -> float:
        settings = CoOpSettings(anchor=anchor, steps=20, learning_rate=0.02, views=0)
        state = CoOp(settings, tiny_backbone).adapt(LABELS, tiny_backbone, support())
        return float((state.weights - plain).norm())

    assert strayed(100.0) < 0.5 * strayed(0.0)


@pytest.mark.parametrize("bad", [{"context": 0}, {"learning_rate": float("nan")}, {"heldout": 1.0}, {"steps": -1}])
def test_settings_out_of_bounds_are_refused(bad: dict[str, float]) -> None:
    make: Callable[..., CoOpSettings] = CoOpSettings
    with pytest.raises(ValueError, match=next(iter(bad))):
        make(**bad)
