"""Per-image prompt tuning, against its formulas and against autograd done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import ClassName, ImageAdapter, ImageNeeds, LabelSet
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from adapters.methods.tpt import TPT, ClassPrompts, TPTSettings, confident, marginal_entropy, mean_prediction
from adapters.methods.zero_shot import ZeroShot, ZeroShotSettings

LABELS = LabelSet.of("cat", "dog", "red fox", "teapot", "bus")
FEW = TPTSettings(views=6, keep=0.5, chunk=16)


def random_pixels(images: int, views: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (images, views, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_the_views_of_lowest_entropy_are_kept_and_at_least_one() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [1.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    assert confident(logits, keep=0.5).tolist() == [1, 3]
    assert confident(logits, keep=0.1).tolist() == [1]
    assert len(confident(torch.randn(64, 5), keep=0.1)) == 6


def test_marginal_entropy_is_that_of_the_mean_probabilities() -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    mean = logits.softmax(dim=-1).mean(dim=0)
    assert torch.allclose(mean_prediction(logits).exp(), mean, atol=1e-6)
    assert torch.allclose(marginal_entropy(logits), -(mean * mean.log()).sum(), atol=1e-6)
    assert marginal_entropy(torch.zeros(3, 4)).item() == pytest.approx(math.log(4))


def test_without_a_step_it_is_zero_shot(tiny_backbone: Backbone) -> None:
    adapter = TPT(TPTSettings(views=6, steps=0), tiny_backbone)
    state, pixels = adapter.adapt(LABELS, tiny_backbone), random_pixels(2, 6)
    plain = ZeroShot(ZeroShotSettings()).adapt(LABELS, tiny_backbone)
    expected = plain.logit_scale * tiny_backbone.image.encode(pixels[:, 0]) @ plain.weights.T
    assert torch.allclose(state.weights, plain.weights, atol=1e-5)
    assert torch.allclose(adapter.logits(pixels, state, tiny_backbone), expected, atol=1e-3)


def test_one_step_is_one_step_of_adamw_on_the_marginal_entropy(tiny_backbone: Backbone) -> None:
    adapter, pixels = TPT(FEW, tiny_backbone), random_pixels(1, 6)
    state = adapter.adapt(LABELS, tiny_backbone)
    features = tiny_backbone.image.encode(pixels[0])
    ctx = state.extras["context"].clone().requires_grad_()
    prompts = ClassPrompts(state.extras, tiny_backbone.text, 5)
    whole = slice(0, 5)
    logits = state.logit_scale * features @ prompts.encode(ctx, whole).T
    marginal_entropy(logits[confident(logits, keep=0.5)]).backward()
    assert ctx.grad is not None
    # the first step of AdamW is the sign of the gradient, after the decay
    tuned = ctx.detach() * (1 - 5e-3 * 0.01) - 5e-3 * ctx.grad / (ctx.grad.abs() + 1e-8)
    expected = state.logit_scale * features[0] @ prompts.encode(tuned, whole).T
    assert torch.allclose(adapter.logits(pixels, state, tiny_backbone)[0], expected, atol=2e-3)


def test_tuning_lowers_the_entropy_of_the_views(tiny_backbone: Backbone) -> None:
    pixels = random_pixels(1, 1)
    entropies = []
    for steps in (0, 10):
        adapter = TPT(TPTSettings(views=1, steps=steps), tiny_backbone)
        state = adapter.adapt(LABELS, tiny_backbone)
        entropies.append(marginal_entropy(adapter.logits(pixels[:, 0], state, tiny_backbone)).item())
    assert entropies[1] < entropies[0]


def test_chunks_change_memory_and_not_the_logits(tiny_backbone: Backbone) -> None:
    pixels, answers = random_pixels(1, 6), []
    for chunk in (2, 16):
        adapter = TPT(TPTSettings(views=6, keep=0.5, chunk=chunk), tiny_backbone)
        answers.append(adapter.logits(pixels, adapter.adapt(LABELS, tiny_backbone), tiny_backbone))
    assert torch.allclose(answers[0], answers[1], atol=5e-3)


@pytest.mark.parametrize("settings", [FEW, TPTSettings(mode="vote", views=6)])
def test_an_image_is_scored_alone_and_leaves_nothing_behind(tiny_backbone: Backbone, settings: TPTSettings) -> None:
    adapter = TPT(settings, tiny_backbone)
    state, pixels = adapter.adapt(LABELS, tiny_backbone), random_pixels(3, 6)
    context = {key: value.clone() for key, value in state.extras.items()}
    together = adapter.logits(pixels, state, tiny_backbone)
    alone = torch.cat([adapter.logits(pixels[row : row + 1], state, tiny_backbone) for row in (2, 1, 0)])
    assert together.shape == (3, 5)
    assert torch.equal(together, alone.flip(0))
    assert all(torch.equal(value, context[key]) for key, value in state.extras.items())


def test_a_vote_is_the_mean_probability_of_the_confident_views(tiny_backbone: Backbone) -> None:
    adapter, pixels = TPT(TPTSettings(mode="vote", views=6, keep=0.5), tiny_backbone), random_pixels(1, 6)
    state = adapter.adapt(LABELS, tiny_backbone)
    before = tiny_backbone.text.prompts_encoded
    scores = adapter.logits(pixels, state, tiny_backbone)[0].softmax(dim=-1)
    probabilities = (state.logit_scale * tiny_backbone.image.encode(pixels[0]) @ state.weights.T).softmax(dim=-1)
    entropy = -(probabilities * probabilities.log()).sum(dim=-1)
    assert torch.allclose(scores, probabilities[entropy.argsort()[:3]].mean(dim=0), atol=1e-5)
    assert tiny_backbone.text.prompts_encoded == before


def test_a_state_from_bytes_tunes_as_before(tiny_backbone: Backbone) -> None:
    labels = LabelSet((ClassName("cat", ("kitten",)), ClassName("dog", descriptions=("an animal that barks",))))
    adapter, pixels = TPT(FEW, tiny_backbone), random_pixels(2, 6)
    state = adapter.adapt(labels, tiny_backbone)
    back = state_from_bytes(state_to_bytes(state))
    expected = adapter.logits(pixels, state, tiny_backbone)
    assert torch.equal(adapter.logits(pixels, back, tiny_backbone), expected)
    assert isinstance(adapter, ImageAdapter)
    assert adapter.needs(back) == ImageNeeds(views=6, scored_by="tpt")


@pytest.mark.parametrize(("template", "tokens"), [("a drawing of {}", 3), ("{} in the wild", 3), ("{}", 4)])
def test_the_words_of_a_template_are_tuned(tiny_backbone: Backbone, template: str, tokens: int) -> None:
    labels = LabelSet.of("cat", "dog", templates=(template,))
    state = TPT(FEW, tiny_backbone).adapt(labels, tiny_backbone)
    assert len(state.extras["context"]) == tokens
    if template != "{}":
        texts = [template.replace("{}", name) for name in labels.names]
        assert torch.allclose(state.weights, tiny_backbone.text.encode_texts(texts), atol=1e-5)


def test_a_single_class_is_scored_without_nan(tiny_backbone: Backbone) -> None:
    adapter = TPT(FEW, tiny_backbone)
    state = adapter.adapt(LabelSet.of("cat"), tiny_backbone)
    assert bool(adapter.logits(random_pixels(2, 6), state, tiny_backbone).isfinite().all())


@pytest.mark.parametrize("options", [{"views": 0}, {"keep": 0.0}, {"learning_rate": float("nan")}, {"steps": -1}])
def test_settings_out_of_place_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        TPTSettings(**options)  # type: ignore[arg-type]  # mixed literals


def test_rows_of_a_class_are_unit_vectors(tiny_backbone: Backbone) -> None:
    labels = LabelSet((ClassName("cat", ("kitten",), ("an animal that purrs",)), ClassName("dog")))
    state = TPT(FEW, tiny_backbone).adapt(labels, tiny_backbone)
    assert torch.allclose(state.weights, F.normalize(state.weights, dim=-1), atol=1e-6)
