"""The opened towers equal open_clip's own encoders."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn import functional as F

from adapters.base import LabelSet
from adapters.clip import Backbone, open_backbone
from adapters.errors import BackboneError, LabelSetError
from adapters.text.layout import POSITIONS, Position, lay_out

TEXTS = ["a photo of a cat.", "x", "a photo of a very long name of some animal nobody knows."]


def tiny_model(cls: type[torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(3)
    vision = open_clip.CLIPVisionCfg(layers=1, width=64, head_width=32, patch_size=8, image_size=32)
    text = open_clip.CLIPTextCfg(context_length=24, width=64, heads=2, layers=2)
    return cls(embed_dim=64, vision_cfg=vision, text_cfg=text).eval()


@pytest.mark.parametrize("cls", [open_clip.CLIP, open_clip.CustomTextCLIP])
def test_cut_text_encoding_equals_encode_text(cls: type[torch.nn.Module]) -> None:
    model, tokenizer = tiny_model(cls), open_clip.SimpleTokenizer(context_length=24)
    opened = open_backbone(model, image_transform_v2(PreprocessCfg(size=32), is_train=False), tokenizer, name="t")
    with torch.no_grad():
        whole = F.normalize(model.encode_text(tokenizer(TEXTS)), dim=-1)
    assert torch.allclose(opened.text.encode_texts(TEXTS), whole, atol=1e-6)


def test_image_features_are_bit_equal_to_open_clips_own_path() -> None:
    model, transform = tiny_model(open_clip.CLIP), image_transform_v2(PreprocessCfg(size=32), is_train=False)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (57, 91, 3), dtype=np.uint8))
    opened = open_backbone(model, transform, open_clip.SimpleTokenizer(context_length=24), name="t")
    ours = opened.image.encode(opened.preprocess.pixels(image)[None])
    with torch.no_grad():
        theirs = F.normalize(
            model.encode_image(transform(image)[None].to(memory_format=torch.contiguous_format)), dim=-1
        )
    assert torch.equal(opened.image.normalize(opened.preprocess.pixels(image)[None])[0], transform(image))
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_prompt_filled_with_word_embeddings_equals_the_written_text(
    tiny_backbone: Backbone, position: Position
) -> None:
    text = tiny_backbone.text
    context = text.embed_tokens(text.tokens("a photo of a"))
    names = [text.tokens("grey cat"), text.tokens("dog")]
    layout = lay_out(names, context=4, position=position, stop=text.tokens("."), sot=text.sot, eot=text.eot)
    pattern = {"front": "{} a photo of a.", "middle": "a photo {} of a.", "end": "a photo of a {}."}[position]
    written = text.encode_texts([pattern.format("grey cat"), pattern.format("dog")])
    assert torch.allclose(text.encode_prompts(context, layout), written, atol=1e-6)


@pytest.mark.parametrize("name", ["word " * 40, "<end_of_text>"])
def test_a_name_that_does_not_fit_is_refused_by_place(tiny_backbone: Backbone, name: str) -> None:
    with pytest.raises(LabelSetError) as caught:
        tiny_backbone.text.check(LabelSet.of("cat", name))
    assert caught.value.field == "classes[1].name"


def test_a_template_that_leaves_no_room_for_the_longest_name_is_refused(tiny_backbone: Backbone) -> None:
    labels = LabelSet.of("cat", "red brick house by the sea", templates=("a " * 16 + "{}.",))
    with pytest.raises(LabelSetError, match="tokens"):
        tiny_backbone.text.check(labels)


def test_every_prompt_that_passes_the_tower_is_counted(tiny_backbone: Backbone) -> None:
    before = tiny_backbone.text.prompts_encoded
    tiny_backbone.text.encode_texts(["a", "b", "c"])
    assert tiny_backbone.text.prompts_encoded == before + 3


def test_a_text_tower_without_causal_mask_serves_plain_texts_but_learns_no_prompts() -> None:
    model = tiny_model(open_clip.CustomTextCLIP)
    model.text.attn_mask = None  # type: ignore[union-attr,assignment]  # as in SigLIP
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    opened = open_backbone(model, image_transform_v2(PreprocessCfg(size=32), is_train=False), tokenizer, name="t")
    assert opened.text.encode_texts(["a cat"]).shape == (1, 64)
    with pytest.raises(BackboneError, match="zero-shot"):
        opened.text.tokens("a cat")
