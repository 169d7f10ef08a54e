"""What the text tower leaves out changes nothing: shared beginnings, cut ends, remembered features, slices of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor
from torch.nn import functional as F

from adapters.base import LabelSet
from adapters.clip import Backbone, open_backbone
from adapters.methods.zero_shot import ZeroShot, ZeroShotSettings
from adapters.text.chunked import Slices, backward_rows
from adapters.text.features import TextFeatures
from adapters.text.layout import POSITIONS, PromptLayout, concatenate, lay_out
from adapters.text.passes import TextPasses
from adapters.text.shared_beginnings import shared_beginnings
from adapters.text.tokens import WORDS, Tokens
from adapters.text.tower import TextTower

NAMES = ("grey cat", "dog", "very old wooden house", "red cup", "steam engine on rails")
TEMPLATES = ("a photo of a {}.", "a photo of the large {}.", "{}.", "itap of my {}.")
TEXTS = [template.replace("{}", f"{name} {n}") for n in range(8) for template in TEMPLATES for name in NAMES]


def opened_and_own(dtype: torch.dtype = torch.float32, **text: object) -> tuple[Backbone, Tensor]:
    """A backbone, and what open_clip's own `encode_text` makes of the texts."""
    torch.manual_seed(5)
    vision = open_clip.CLIPVisionCfg(layers=1, width=64, head_width=32, patch_size=8, image_size=32)
    shape = open_clip.CLIPTextCfg(context_length=24, width=64, heads=4, layers=3, **text)  # type: ignore[arg-type]  # of the case
    model, tokenizer = open_clip.CustomTextCLIP(64, vision, shape).eval(), open_clip.SimpleTokenizer(context_length=24)
    with torch.no_grad():
        own = F.normalize(model.encode_text(tokenizer(TEXTS)), dim=-1)
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    return open_backbone(model, transform, tokenizer, name="t", dtype=dtype), own


@pytest.mark.parametrize("text", [{}, {"ls_init_value": 0.3}, {"block_type": "custom", "qk_norm": True}])
def test_texts_that_begin_alike_are_encoded_as_open_clip_does(text: dict[str, object]) -> None:
    backbone, own = opened_and_own(**text)
    assert torch.allclose(backbone.text.encode_texts(TEXTS), own, atol=2e-6)


def test_a_tower_in_bf16_keeps_its_directions() -> None:
    backbone, own = opened_and_own(torch.bfloat16)
    assert float(F.cosine_similarity(backbone.text.encode_texts(TEXTS), own).min()) > 0.999


def layout_of(text: TextTower, *positions: str) -> PromptLayout:
    names, marks = [text.tokens(name) for name in NAMES], {"stop": text.tokens("."), "sot": text.sot, "eot": text.eot}
    return concatenate([lay_out(names, context=4, position=p, **marks) for p in positions])  # type: ignore[arg-type]  # positions


def encodings(
    text: TextTower, ctx: Tensor, layout: PromptLayout, deep: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and the gradient of some function of them: sharing beginnings, and by the tower's own transformer."""
    whole = TextPasses(text._passes._tower, None, device=text.device)
    weight = torch.randn(len(layout), 64, generator=torch.Generator().manual_seed(1))
    for passes in (text._passes, whole):
        leaf = ctx.clone().requires_grad_()
        features = passes.prompts(leaf, layout, deep)
        (features * weight).sum().backward()
        assert leaf.grad is not None
        yield features, leaf.grad


@pytest.mark.parametrize("positions", [("end",), ("middle",), POSITIONS])
@pytest.mark.parametrize("own", [False, True])
def test_sharing_the_beginning_of_prompts_is_exact_also_for_gradients(
    tiny_backbone: Backbone, positions: tuple[str, ...], own: bool
) -> None:
    text, layout = tiny_backbone.text, layout_of(tiny_backbone.text, *positions)
    shape = (len(layout), 4, text.width) if own else (4, text.width)
    ctx = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.05
    (shared, gradient), (whole, expected) = encodings(text, ctx, layout)
    torch.testing.assert_close(shared, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("positions", [("end",), ("middle", "end")])
def test_deep_prompts_share_beginnings_too(tiny_backbone: Backbone, positions: tuple[str, ...]) -> None:
    text, layout = tiny_backbone.text, layout_of(tiny_backbone.text, *positions)
    ctx, deep = torch.randn(2, 4, text.width, generator=torch.Generator().manual_seed(0)).mul(0.05).split(1)
    (shared, gradient), (whole, expected) = encodings(text, ctx[0], layout, deep)
    torch.testing.assert_close(shared, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_prompts_are_sorted_without_changing_places(tiny_backbone: Backbone) -> None:
    layout = layout_of(tiny_backbone.text, *POSITIONS)
    order = layout.order()
    back = layout.rows(order).rows(order.argsort())
    assert torch.equal(back.eot_N, layout.eot_N)
    assert torch.equal(back.slots_NM, layout.slots_NM)


def test_beginnings_are_shared_by_enough_texts_and_never_reach_the_end() -> None:
    texts = torch.tensor([[9, 1, 2, 5, 8], [9, 1, 2, 8, 0], [9, 1, 3, 8, 0], [9, 4, 8, 0, 0]])
    sharing = shared_beginnings(texts.numpy(), torch.tensor([4, 3, 3, 2]).numpy(), shared_by=2)
    assert sharing.taken_N.tolist() == [3, 3, 2, 1]
    for row, (head, taken) in enumerate(zip(sharing.heads_P[sharing.which_N], sharing.taken_N, strict=True)):
        assert torch.equal(texts[head][:taken], texts[row][:taken])


def test_label_sets_that_overlap_share_their_features(tiny_backbone: Backbone) -> None:
    text = tiny_backbone.text.remembering(TextFeatures(1 << 20, fingerprint="f"))
    fresh, before = text.encode_templated(NAMES, TEMPLATES), text.prompts_encoded
    again = text.encode_templated((*NAMES[1:], "tower"), TEMPLATES)
    assert text.prompts_encoded == before + len(TEMPLATES)
    assert torch.equal(again[:-1], fresh[1:])
    text.encode_templated(NAMES, TEMPLATES[:1])
    assert text.prompts_encoded == before + len(TEMPLATES) + len(NAMES)


def test_remembered_features_serve_a_label_set_as_fresh_ones_do(tiny_backbone: Backbone) -> None:
    from dataclasses import replace

    labels, adapter = LabelSet.of(*NAMES), ZeroShot(ZeroShotSettings())
    text = tiny_backbone.text.remembering(TextFeatures(1 << 20, fingerprint="f"))
    remembering = replace(tiny_backbone, text=text)
    fresh = adapter.adapt(labels, tiny_backbone).weights
    assert torch.equal(adapter.adapt(labels, remembering).weights, fresh)
    before = text.prompts_encoded
    assert torch.equal(adapter.adapt(labels, remembering).weights, fresh)
    assert text.prompts_encoded == before


def test_remembered_features_keep_to_their_bytes() -> None:
    features = TextFeatures(10 * (64 * 4 + 256), fingerprint="f")
    compute: Callable[[list[int]], Tensor] = lambda places: torch.ones(len(places), 64)  # noqa: E731  # short
    for start in range(0, 40, 4):
        features.rows((), [str(n) for n in range(start, start + 4)], compute)
    features.rows((), [str(n) for n in range(100, 200)], compute)
    assert len(features) == 10
    assert features.nbytes <= 10 * (64 * 4 + 256)
    assert features.rows((), ["39", "39"], compute).shape == (2, 64)
    assert features.hits == 1


def test_the_tokenizer_does_not_remember_every_word_it_ever_saw() -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    tokens = Tokens(tokenizer)
    tokenizer.cache.update({f"word{n}": "w" for n in range(WORDS)})
    assert tokens.of("<end_of_text> cat")[0] == tokenizer.eot_token_id
    assert len(tokenizer.cache) < 10
    assert tokens.of("<end_of_text> dog")[0] == tokenizer.eot_token_id


@pytest.mark.parametrize("slices", [Slices(3, 2, 100), Slices(4, 2, 3), Slices(100, 100, 100)])
def test_slices_change_neither_loss_nor_gradient(tiny_backbone: Backbone, slices: Slices) -> None:
    text, layout, ticks = tiny_backbone.text, layout_of(tiny_backbone.text, *POSITIONS), []
    found = []
    for chunk in (Slices.of(1000), slices):
        ctx = text.embed_tokens(text.tokens("a photo of a")).requires_grad_()
        ticks.clear()
        loss = backward_rows(
            lambda part, ctx=ctx: text.encode_prompts(ctx, layout.rows(part)),  # type: ignore[misc]  # bound at once
            len(layout), lambda features: (features @ features.T).exp().mean(), chunk=chunk,
            tick=lambda: ticks.append(None),
        )  # fmt: skip
        found.append((loss, ctx.grad))
    assert len(ticks) == slices.ticks(len(layout))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)
