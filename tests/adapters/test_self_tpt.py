"""Self-TPT's losses and stage 2 against slow, plain reference computations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from adapters.base import LabelSet
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged
from adapters.learning.directions import without_common, without_direction
from adapters.learning.losses import contrastive_prompt_loss, gradient_matching_loss, smoothed
from adapters.methods.self_tpt import SelfTPT, SelfTPTSettings, adapt_context
from adapters.text.chunked import backward_rows, nothing
from adapters.text.layout import POSITIONS, concatenate, lay_out
from adapters.text.prompt_views import Prompts

NAMES = ("cat", "dog", "red fox", "teapot", "bus", "violin", "tall ship")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_contrastive_prompt_loss_equals_its_definition_pair_by_pair() -> None:
    z, tau = F.normalize(random(4, 3, 8), dim=-1), 0.1
    anchors = list(itertools.product(range(4), range(3)))
    terms = []
    for v, c in anchors:
        others = [(w, d) for w, d in anchors if (w, d) != (v, c)]
        total = sum(math.exp(z[v, c] @ z[w, d] / tau) for w, d in others)
        terms += [-math.log(math.exp(z[v, c] @ z[w, c] / tau) / total) for w, d in others if d == c]
    assert contrastive_prompt_loss(z, temperature=tau).item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_gradient_matching_is_zero_for_parallel_and_two_for_opposite_gradients() -> None:
    g = random(4, 8)
    assert gradient_matching_loss([g], [3 * g]).item() == pytest.approx(0, abs=1e-6)
    assert gradient_matching_loss([g], [-g]).item() == pytest.approx(2, abs=1e-6)


def test_a_smoothed_gradient_keeps_the_graph_of_the_present_only() -> None:
    past, present = random(3).requires_grad_(), random(3).requires_grad_()
    smoothed(present, past, decay=0.9).sum().backward()
    assert past.grad is None
    assert torch.allclose(present.grad, torch.full((3,), 0.1))  # type: ignore[arg-type]  # set by backward


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunked_gradients_equal_unchunked_ones(tiny_backbone: Backbone, chunk: int) -> None:
    text = tiny_backbone.text
    stop = text.tokens(".")
    names = [text.tokens(n) for n in NAMES]
    layouts = [lay_out(names, context=4, position=p, stop=stop, sot=text.sot, eot=text.eot) for p in POSITIONS]
    layout = concatenate(layouts)
    grads, losses = [], []
    for size in (10_000, chunk):
        ctx = text.embed_tokens(text.tokens("a photo of a")).requires_grad_()
        losses.append(
            backward_rows(
                lambda part, ctx=ctx: text.encode_prompts(ctx, layout.rows(part)),  # type: ignore[misc]  # bound at once
                len(layout),
                lambda features: contrastive_prompt_loss(features.view(3, len(NAMES), -1), temperature=0.1),
                chunk=size,
            )
        )
        grads.append(ctx.grad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def stage_two(backbone: Backbone, **settings: object) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    text = backbone.text
    start = text.embed_tokens(text.tokens("a photo of a"))
    hand = text.encode_texts([f"a photo of a {n}." for n in NAMES])
    chosen = SelfTPTSettings(**settings)  # type: ignore[arg-type]  # keywords of the test
    context, losses = adapt_context(
        Prompts(text, NAMES, context=4), hand, start_MW=start, head={}, settings=chosen, tick=nothing
    )
    return start, context, losses


def test_stage_two_lowers_the_contrastive_loss_and_moves_the_context(tiny_backbone: Backbone) -> None:
    start, context, losses = stage_two(tiny_backbone, steps=30, learning_rate=5e-3)
    assert losses[-1] < losses[0]
    assert not torch.equal(start, context)


def test_stage_two_with_class_batches_walks_through_all_names(tiny_backbone: Backbone) -> None:
    _, one, _ = stage_two(tiny_backbone, steps=3, class_batch=3, seed=1)
    _, same, _ = stage_two(tiny_backbone, steps=3, class_batch=3, seed=1)
    _, other, _ = stage_two(tiny_backbone, steps=3, class_batch=3, seed=2)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_stage_two_that_diverges_says_so(tiny_backbone: Backbone) -> None:
    class Spoilt(Prompts):
        def encode(self, ctx_MW: torch.Tensor, *args: object) -> torch.Tensor:
            return super().encode(ctx_MW, *args) * float("nan")  # type: ignore[arg-type]  # passed through

    text = tiny_backbone.text
    start = text.embed_tokens(text.tokens("a photo of a"))
    hand = text.encode_texts([f"a photo of a {n}." for n in NAMES])
    with pytest.raises(AdaptationDiverged):
        adapt_context(
            Spoilt(text, NAMES, context=4), hand, start_MW=start, head={}, settings=SelfTPTSettings(), tick=nothing
        )


def test_a_backbone_without_source_prompts_says_so_in_the_state(tiny_backbone: Backbone) -> None:
    state = SelfTPT(SelfTPTSettings(steps=1), tiny_backbone).adapt(LabelSet.of(*NAMES), tiny_backbone)
    assert state.info["source_prompts"] == "none"
    assert state.extras["context"].shape == (4, 64)


def test_the_tower_and_the_start_are_left_as_they_were(tiny_backbone: Backbone) -> None:
    before = tiny_backbone.text.encode_texts(["a photo of a cat."])
    stage_two(tiny_backbone, steps=5)
    assert torch.equal(tiny_backbone.text.encode_texts(["a photo of a cat."]), before)


def adapted(backbone: Backbone, labels: LabelSet | None = None, **settings: object) -> torch.Tensor:
    chosen = SelfTPTSettings(steps=3, **settings)  # type: ignore[arg-type]  # keywords of the test
    return SelfTPT(chosen, backbone).adapt(labels or LabelSet.of(*NAMES), backbone).weights


def test_dispersion_spreads_the_classes_and_an_anchor_holds_them(tiny_backbone: Backbone) -> None:
    def nearest(rows: torch.Tensor) -> float:
        return float((rows @ rows.T).fill_diagonal_(-1).max(dim=1).values.mean())

    rate = 0.02
    start = adapted(tiny_backbone, learning_rate=1e-9)
    plain, spread = (adapted(tiny_backbone, learning_rate=rate, dispersion=d) for d in (0.0, 100.0))
    held = adapted(tiny_backbone, learning_rate=rate, anchor=1000.0)
    assert nearest(spread) < nearest(plain)
    assert (held - start).norm() < (plain - start).norm()


def test_views_of_an_alias_are_positives_of_its_class() -> None:
    z = F.normalize(random(4, 3, 8), dim=-1)
    joined = contrastive_prompt_loss(z, temperature=0.1, owners_C=torch.tensor([0, 0, 1]))
    apart = contrastive_prompt_loss(z, temperature=0.1)
    assert contrastive_prompt_loss(z, temperature=0.1, owners_C=torch.tensor([5, 3, 9])) == apart
    assert joined != apart


def test_the_share_of_the_hand_written_view_goes_from_none_to_all(tiny_backbone: Backbone) -> None:
    hand = F.normalize(tiny_backbone.text.encode_texts([f"a photo of a {n}." for n in NAMES]), dim=-1)
    assert torch.allclose(adapted(tiny_backbone, hand_share=1.0), hand, atol=1e-5)
    assert not torch.allclose(adapted(tiny_backbone, hand_share=0.0), hand, atol=1e-3)


def test_the_hand_written_view_may_be_an_ensemble_and_takes_the_label_sets_own_templates(
    tiny_backbone: Backbone,
) -> None:
    for hand, used in (("template", 1), ("varied", 2), ("ensemble", 2)):
        templates = ("a drawing of a {}.", "{} on a table.")
        rows = adapted(tiny_backbone, LabelSet.of(*NAMES, templates=templates), hand=hand, hand_share=1.0)
        texts = [[t.replace("{}", n) for t in templates[:used]] for n in NAMES]
        means = torch.stack([tiny_backbone.text.encode_texts(row).mean(dim=0) for row in texts])
        assert torch.allclose(rows, F.normalize(means, dim=-1), atol=1e-5)


def test_shared_directions_are_taken_out_of_the_rows() -> None:
    rows, direction = F.normalize(random(5, 8), dim=-1), random(8)
    freed = without_direction(rows, direction, share=1.0)
    assert torch.allclose(freed @ direction, torch.zeros(5), atol=1e-5)
    assert torch.equal(without_common(rows[:1], share=1.0), rows[:1])
    centred = rows - 0.5 * rows.mean(dim=0)
    assert torch.allclose(without_common(rows, share=0.5), F.normalize(centred, dim=-1))


def test_without_source_prompts_the_state_is_called_data_free(tiny_backbone: Backbone) -> None:
    state = SelfTPT(SelfTPTSettings(steps=1, debias=0.5), tiny_backbone).adapt(LabelSet.of(*NAMES), tiny_backbone)
    assert (state.info["mode"], state.info["source_prompts"]) == ("data-free", "none")
