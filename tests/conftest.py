"""Real objects made tiny: a random CLIP of two layers stands in for the bundled backbone where speed matters."""

from __future__ import annotations

import os

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from adapters.clip import Backbone, open_backbone

torch.set_num_threads(1)
os.environ.setdefault("SELFTPT_ENGINE", "torch")  # what tests start measures no engines, unless they ask for it


def make_tiny_backbone(seed: int = 0, dtype: torch.dtype = torch.float32) -> Backbone:
    """Random weights, joint width 64, images of 32 pixels, context of 24 tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            embed_dim=64,
            vision_cfg=open_clip.CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=8, image_size=32),
            text_cfg=open_clip.CLIPTextCfg(context_length=24, vocab_size=49408, width=64, heads=2, layers=2),
        )
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    return open_backbone(model, transform, tokenizer, name="tiny", dtype=dtype)


@pytest.fixture(scope="session")
def tiny_backbone() -> Backbone:
    return make_tiny_backbone()


@pytest.fixture(scope="session")
def tiny_bf16_backbone() -> Backbone:
    return make_tiny_backbone(dtype=torch.bfloat16)
