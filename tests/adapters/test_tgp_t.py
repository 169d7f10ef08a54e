"""TGP-T as an adapter: its closed form at the start, its losses, and what a fit promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import ImageAdapter, ImageNeeds, LabelSet, Support
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone, open_backbone
from adapters.errors import BackboneError, SupportError
from adapters.learning.bonder import stored_guide
from adapters.learning.text_guidance import NO_TARGET, targets, token_loss
from adapters.learning.token_cache import support_tokens
from adapters.methods.tgp_t import EXTRA, TGPT, TGPTSettings

LABELS = LabelSet.of("cat", "dog", "red fox")
FAST = TGPTSettings(steps=4, batch=4, augmented_views=1, check_every=2, learning_rate=1e-3)


def coloured(per_class: int = 4, classes: int = 3, seed: int = 0) -> Support:
    """Noise around one colour per class: easy to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randint(0, 90, (len(labels), 3, 32, 32), generator=generator)
    noise[torch.arange(len(labels)), labels % 3] += 160
    return Support(noise.to(torch.uint8), labels)


def test_before_any_step_scores_are_zero_shot_of_image_and_text_feature(tiny_backbone: Backbone) -> None:
    adapter = TGPT(TGPTSettings(steps=0, heldout=0.0, augmented_views=0, balance=False), tiny_backbone)
    state, pixels = adapter.adapt(LABELS, tiny_backbone, coloured()), coloured(1, seed=1).pixels
    guide = stored_guide({key.removeprefix(EXTRA): value for key, value in state.extras.items()}, torch.device("cpu"))
    tokens, cls = tiny_backbone.image.stem_tokens(tiny_backbone.image.stem(pixels))
    stop = tiny_backbone.text.tokens(".")
    read = torch.stack([tiny_backbone.text.encode_sequences(p, stop=stop) for p in guide.prompts(tokens)]).mean(dim=0)
    length = (cls.square().sum(dim=-1) + read.square().sum(dim=-1)).sqrt()[:, None]
    expected = state.logit_scale * (cls + read) @ state.weights.T / (length * 2**0.5)
    assert torch.allclose(adapter.logits(pixels, state, tiny_backbone), expected, atol=1e-4)
    texts = [f"a photo of a {name}." for name in LABELS.names]
    assert torch.allclose(state.weights, tiny_backbone.text.encode_texts(texts), atol=1e-5)


def test_targets_end_with_end_of_text_and_missing_captions_have_none(tiny_backbone: Backbone) -> None:
    text = tiny_backbone.text
    rows = targets(["a cat", None, " ", "a cat and a dog and a fox"], text, 5)
    assert rows[0].tolist() == [*text.tokens("a cat"), text.eot, NO_TARGET, NO_TARGET]
    assert rows[1].eq(NO_TARGET).all()
    assert rows[2].eq(NO_TARGET).all()
    assert rows[3].tolist() == text.tokens("a cat and a dog")


def test_token_loss_counts_only_places_with_a_target() -> None:
    generator = torch.Generator().manual_seed(0)
    table, prompts = torch.randn(11, 8, generator=generator), torch.randn(2, 4, 8, generator=generator)
    wanted = torch.tensor([[3, 5, NO_TARGET, NO_TARGET], [7, NO_TARGET, NO_TARGET, NO_TARGET]])
    picked = torch.stack([prompts[0, 0], prompts[0, 1], prompts[1, 0]]) @ table.T
    expected = F.cross_entropy(picked, torch.tensor([3, 5, 7]), label_smoothing=0.1)
    assert torch.allclose(token_loss(prompts, wanted, table), expected)
    assert token_loss(prompts, torch.full((2, 4), NO_TARGET), table).item() == 0


def fitted(backbone: Backbone, support: Support, settings: TGPTSettings = FAST) -> Tensor:
    state = TGPT(settings, backbone).adapt(LABELS, backbone, support)
    return state.extras[EXTRA + "content_queries"]


def test_a_caption_teaches_the_content_bank_and_a_missing_one_masks_that_term_only(tiny_backbone: Backbone) -> None:
    plain = coloured()
    settings = TGPTSettings(steps=4, batch=4, augmented_views=0, heldout=0.0)
    none = fitted(tiny_backbone, plain, settings)
    missing = fitted(tiny_backbone, Support(plain.pixels, plain.labels, (None,) * 12), settings)
    told = fitted(tiny_backbone, Support(plain.pixels, plain.labels, (*["a cat on a mat"] * 4, *[None] * 8)), settings)
    assert torch.equal(none, missing)
    assert not torch.equal(none, told)


def test_it_learns_what_zero_shot_does_not_know(tiny_backbone: Backbone) -> None:
    settings = TGPTSettings(steps=20, learning_rate=3e-3, augmented_views=0, check_every=10)
    adapter, unseen = TGPT(settings, tiny_backbone), coloured(6, seed=1)
    state = adapter.adapt(LABELS, tiny_backbone, coloured(8))
    right = adapter.logits(unseen.pixels, state, tiny_backbone).argmax(dim=-1) == unseen.labels
    assert right.float().mean() > 0.9
    assert state.info["heldout_top1"] > 0.9
    assert state.info["heldout_images"] == 6
    assert state.info["logit_scale_from"] == "support"
    assert state.info["loss_last"] < state.info["loss_first"]


def test_a_step_encodes_two_sequences_per_image_however_many_classes(tiny_backbone: Backbone) -> None:
    text, passes = tiny_backbone.text, []
    for classes in (3, 30):
        labels = LabelSet.of(*(f"thing {n}" for n in range(classes)))
        counts = []
        for steps in (2, 3):
            before = text.prompts_encoded
            settings = TGPTSettings(steps=steps, batch=4, augmented_views=0, heldout=0.0)
            TGPT(settings, tiny_backbone).adapt(labels, tiny_backbone, coloured(2, classes))
            counts.append(text.prompts_encoded - before)
        passes.append(counts[1] - counts[0])
    assert passes == [8, 8]


def test_fits_are_repeatable_and_survive_bytes(tiny_backbone: Backbone) -> None:
    adapter, pixels = TGPT(FAST, tiny_backbone), coloured(2, seed=1).pixels
    first, second = (adapter.adapt(LABELS, tiny_backbone, coloured()) for _ in range(2))
    back = state_from_bytes(state_to_bytes(first))
    scores = adapter.logits(pixels, first, tiny_backbone)
    assert scores.shape == (6, 3)
    assert torch.equal(adapter.logits(pixels, second, tiny_backbone), scores)
    assert torch.equal(adapter.logits(pixels, back, tiny_backbone), scores)
    assert isinstance(adapter, ImageAdapter)
    assert adapter.needs(back) == ImageNeeds(scored_by="tgp-t")


def test_a_row_of_logits_depends_on_its_own_image_only(tiny_backbone: Backbone) -> None:
    adapter, pixels = TGPT(FAST, tiny_backbone), coloured(2, seed=1).pixels
    state = adapter.adapt(LABELS, tiny_backbone, coloured())
    alone = torch.cat([adapter.logits(image[None], state, tiny_backbone) for image in pixels])
    assert torch.allclose(adapter.logits(pixels, state, tiny_backbone), alone, atol=1e-4)


def test_the_head_can_stay_part_zero_shot(tiny_backbone: Backbone) -> None:
    heads = []
    for mix in (0.0, 0.5, 1.0):
        settings = TGPTSettings(steps=3, augmented_views=0, heldout=0.0, learning_rate=1e-2, head_mix=mix)
        heads.append(
            TGPT(settings, tiny_backbone).adapt(LABELS, tiny_backbone, coloured()).extras[EXTRA + "head.weight"]
        )
    assert torch.allclose(heads[1], (heads[0] + heads[2]) / 2, atol=1e-6)
    assert torch.allclose(heads[0].norm(dim=-1), torch.ones(3), atol=1e-5)


def test_what_cannot_be_fitted_is_refused_before_any_text_pass(tiny_backbone: Backbone) -> None:
    adapter, before = TGPT(FAST, tiny_backbone), tiny_backbone.text.prompts_encoded
    for support in (None, coloured(2, 2)):
        with pytest.raises(SupportError):
            adapter.adapt(LABELS, tiny_backbone, support)
    assert tiny_backbone.text.prompts_encoded == before


def test_an_image_tower_without_tokens_is_named_as_the_reason() -> None:
    backbone = convolutional_backbone()
    with pytest.raises(BackboneError, match="tokens"):
        TGPT(FAST, backbone).adapt(LABELS, backbone, coloured())


def convolutional_backbone() -> Backbone:
    import open_clip

    model = open_clip.CLIP(
        embed_dim=64,
        vision_cfg=open_clip.CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, image_size=32),
        text_cfg=open_clip.CLIPTextCfg(context_length=24, vocab_size=49408, width=64, heads=2, layers=1),
    )
    transform = open_clip.image_transform(32, is_train=False)
    return open_backbone(model, transform, open_clip.SimpleTokenizer(context_length=24), name="convolutional")


def test_many_images_get_fewer_views_rather_than_more_memory(tiny_backbone: Backbone) -> None:
    support = coloured()
    assert support_tokens(tiny_backbone, support, views=3, seed=0).views == 3
    cache = support_tokens(tiny_backbone, support, views=3, seed=0, most_bytes=12 * 2 * 17 * 64 * 2)
    assert (cache.views, tuple(cache.tokens_NVTD.shape)) == (1, (12, 2, 17, 64))
