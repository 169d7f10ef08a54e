"""MaPLe: coupled deep prompts in both towers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adapters import create_adapter
from adapters.base import ImageNeeds, InfoValue, LabelSet, Support, VisualPrompts
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from adapters.errors import BackboneError, LabelSetError, OptionError, SupportError
from adapters.learning.support_stems import SupportStems
from adapters.methods.maple import CoupledPrompts, MaPLe, MaPLeSettings, deep_prompts, start_prompts
from adapters.vision.tower import ImageTower

LABELS = LabelSet.of("cat", "dog", "red fox")
FAST = MaPLeSettings(steps=3, batch=4, views=1)


def support(per_class: int = 3) -> Support:
    """One colour per class, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(per_class)
    pixels = torch.randint(0, 120, (len(labels), 3, 32, 32), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(len(labels)), labels] += 120
    return Support(pixels, labels)


def test_parameters_at_the_dimensions_of_vit_b_16() -> None:
    coupled = CoupledPrompts.start(torch.zeros(2, 512), layers=9, token_width=768, seed=0)
    assert coupled.scalars == 3_555_072
    assert coupled.visual(coupled.text_JPW).numel() * 2 == 27_648


def test_the_deeper_maps_start_as_copies_of_one() -> None:
    maps = CoupledPrompts.start(torch.zeros(2, 64), layers=4, token_width=32, seed=0).weights_JVW
    assert torch.equal(maps[1], maps[3])
    assert not torch.equal(maps[0], maps[1])


def test_prompts_go_no_deeper_than_the_shallower_tower(tiny_backbone: Backbone) -> None:
    coupled = start_prompts(tiny_backbone, MaPLeSettings())
    assert len(coupled.text_JPW) == min(tiny_backbone.text.depth, tiny_backbone.image.depth)
    words = tiny_backbone.text.embed_tokens(tiny_backbone.text.tokens("a photo"))
    assert torch.equal(coupled.text_JPW[0], words)


def test_a_fit_lowers_the_loss_and_says_what_it_did(tiny_backbone: Backbone) -> None:
    settings = replace(FAST, steps=30, learning_rate=0.01, batch=6, views=0)
    info = MaPLe(settings, tiny_backbone).adapt(LABELS, tiny_backbone, support()).info
    assert float(info["loss_last"]) < 0.7 * float(info["loss_first"])
    assert (info["support_images"], info["heldout_images"], info["steps"]) == (9, 3, 30)
    assert {"heldout_top1", "heldout_top1_zero_shot", "seconds"} <= set(info)


def test_stored_visual_prompts_score_as_the_live_ones(tiny_backbone: Backbone) -> None:
    state = MaPLe(replace(FAST, steps=0), tiny_backbone).adapt(LABELS, tiny_backbone, support())
    stored = state_from_bytes(state_to_bytes(state))
    live = start_prompts(tiny_backbone, FAST)
    pixels = support().pixels
    served = tiny_backbone.image.encode_prompted(pixels, stored.visual_prompts) @ stored.weights.T
    stem = tiny_backbone.image.stem(pixels)
    learnt = tiny_backbone.image.encode_stem(stem, VisualPrompts(live.visual(live.text_JPW), before_norm=True))
    rows = deep_prompts(LABELS, tiny_backbone, FAST).rows(live.text_JPW)
    assert torch.allclose(served, learnt @ rows.T, atol=1e-6)


def test_the_image_tower_is_asked_for_the_prompts_and_only_they_are_kept(tiny_backbone: Backbone) -> None:
    adapter = MaPLe(FAST, tiny_backbone)
    state = adapter.adapt(LABELS, tiny_backbone, support())
    assert adapter.needs(state) == ImageNeeds(prompts=2, layers=2, before_norm=True)
    assert {name: tuple(value.shape) for name, value in state.extras.items()} == {
        "context": (2, 2, 64),
        "visual_prompts_before_norm": (2, 2, 64),
    }


def gradients(backbone: Backbone, chunk: int) -> list[Tensor]:
    """Of the cross-entropy of one step, at all leaves."""
    coupled, shots = start_prompts(backbone, FAST), support(1)
    leaves = [coupled.text_JPW, coupled.weights_JVW, coupled.biases_JV]
    for leaf in leaves:
        leaf.requires_grad_()
    prompts = deep_prompts(LABELS, backbone, replace(FAST, chunk=chunk))
    visual = VisualPrompts(coupled.visual(coupled.text_JPW), before_norm=True)
    features = backbone.image.encode_stem(backbone.image.stem(shots.pixels), visual)

    def loss(rows: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(100 * features @ rows.T, shots.labels)

    prompts.backward(coupled.text_JPW, torch.arange(3), loss)
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def test_gradients_in_chunks_are_those_of_the_whole(tiny_backbone: Backbone) -> None:
    whole, chunked = gradients(tiny_backbone, 64), gradients(tiny_backbone, 2)
    assert len(whole) == len(chunked) == 3
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(whole, chunked, strict=True))
    assert all(bool((gradient != 0).flatten(1).any(dim=1).all()) for gradient in whole)  # every layer learns


def test_stems_that_do_not_fit_are_made_anew_and_equal_the_kept_ones(tiny_backbone: Backbone) -> None:
    kept = SupportStems(tiny_backbone, support(), views=2, seed=0)
    anew = SupportStems(tiny_backbone, support(), views=2, seed=0, budget=0)
    rows = torch.tensor([4, 0, 7, 4, 2])
    assert torch.allclose(kept.drawn(1)(rows), anew.drawn(1)(rows), atol=1e-5)
    assert torch.allclose(kept.plain(rows), anew.plain(rows), atol=1e-5)


def test_what_is_missing_is_refused_before_any_model_work(tiny_backbone: Backbone) -> None:
    adapter, before = MaPLe(FAST, tiny_backbone), tiny_backbone.text.prompts_encoded
    with pytest.raises(SupportError):
        adapter.adapt(LABELS, tiny_backbone)
    with pytest.raises(LabelSetError):
        adapter.adapt(LabelSet.of("cat"), tiny_backbone, support())
    with pytest.raises(BackboneError, match="image tower"):
        adapter.adapt(LABELS, without_tokens(tiny_backbone), support())
    assert tiny_backbone.text.prompts_encoded == before


def without_tokens(backbone: Backbone) -> Backbone:
    closed = ImageTower(lambda x: x, (0.5,) * 3, (0.5,) * 3, device=torch.device("cpu"), dtype=torch.float32)
    return replace(backbone, image=closed)


@pytest.mark.parametrize(("name", "options"), [("maple", {}), ("quantized", {"host": "maple"})])
def test_a_backbone_without_tokens_is_refused_when_the_adapter_is_made(
    tiny_backbone: Backbone, name: str, options: dict[str, InfoValue]
) -> None:
    with pytest.raises(OptionError, match="tiny"):
        create_adapter(name, without_tokens(tiny_backbone), options)
