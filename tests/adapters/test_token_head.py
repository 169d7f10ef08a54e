"""The token head: what it promises on a tiny convolutional backbone, and the bundled one against its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor

from adapters.base import VisualPrompts
from adapters.clip import BUNDLED_DIR, Backbone, load_backbone, open_backbone
from adapters.errors import BackboneError
from adapters.vision.token_head import CONFIG_FILE, WEIGHTS_FILE, HeadShape, TokenHead, save_head
from tests.adapters.test_bundled import generated_image

SIDE, JOINT, POSITIONS, CHANNELS = 64, 24, 4, 256
MEGABYTE = 1_000_000


def open_convolutional(folder: Path | None, dtype: torch.dtype = torch.float32) -> Backbone:
    torch.manual_seed(6)
    vision = open_clip.CLIPVisionCfg(
        timm_model_name="test_efficientnet", timm_model_pretrained=False, timm_proj="linear", image_size=SIDE
    )
    text = open_clip.CLIPTextCfg(context_length=24, width=32, heads=2, layers=1)
    model = open_clip.CLIP(embed_dim=JOINT, vision_cfg=vision, text_cfg=text)
    transform = image_transform_v2(PreprocessCfg(size=SIDE), is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    return open_backbone(model, transform, tokenizer, name="tiny", dtype=dtype, folder=folder)


def write_head(folder: Path, fingerprint: str, **sizes: Any) -> None:
    torch.manual_seed(7)
    shape = {"channels": CHANNELS, "positions": POSITIONS, "embed_dim": JOINT, "width": 20, "heads": 2, "depth": 3,
             "inner": 16, **sizes}  # fmt: skip
    save_head(TokenHead(HeadShape(**shape)), folder, backbone=fingerprint, facts={})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_head(tmp_path, open_convolutional(None).fingerprint)
    return tmp_path


def pixels(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def test_a_head_opens_a_convolutional_tower_and_leaves_the_plain_path_alone(folder: Path) -> None:
    plain, opened = open_convolutional(None), open_convolutional(folder)
    assert (plain.image.promptable, opened.image.promptable) == (False, True)
    assert (opened.image.token_width, opened.image.depth) == (20, 3)
    assert len(opened.image.tokens_version) == 64
    assert opened.fingerprint == plain.fingerprint
    assert torch.equal(opened.image.encode(pixels()), plain.image.encode(pixels()))


def test_prompts_of_every_layer_count_and_none_are_none(folder: Path) -> None:
    image = open_convolutional(folder).image
    tokens = torch.randn(3, 2, 20, requires_grad=True)
    prompted = image.encode_stem(image.stem(pixels()), VisualPrompts(tokens))
    (prompted * torch.linspace(-1, 1, JOINT)).sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad.norm(dim=-1) > 0).all()
    without = image.encode_prompted(pixels(), None)
    assert not torch.allclose(prompted, without, atol=1e-3)
    assert torch.allclose(image.encode_prompted(pixels(), VisualPrompts(torch.zeros(3, 0, 20))), without, atol=1e-6)


def test_images_with_prompts_of_their_own_equal_separate_batches(folder: Path) -> None:
    image, tokens = open_convolutional(folder).image, torch.randn(2, 1, 4, 20)
    together = image.encode_prompted(pixels(), VisualPrompts(tokens, before_norm=True))
    for row in range(2):
        alone = image.encode_prompted(pixels()[row : row + 1], VisualPrompts(tokens[row], before_norm=True))
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def test_tokens_come_in_the_joint_width_with_the_features_of_the_token_path(folder: Path) -> None:
    image = open_convolutional(folder).image
    tokens, features = image.stem_tokens(image.stem(pixels()))
    assert tokens.shape == (2, POSITIONS + 1, JOINT)
    unit = torch.nn.functional.normalize(features, dim=-1)
    assert torch.allclose(unit, image.encode_prompted(pixels(), None), atol=1e-6)


def test_a_bf16_tower_brings_its_head_along(folder: Path) -> None:
    precise, coarse = open_convolutional(folder).image, open_convolutional(folder, torch.bfloat16).image
    found = coarse.encode_prompted(pixels(), VisualPrompts(torch.randn(3, 2, 20)))
    assert found.isfinite().all()
    cosine = (coarse.encode_prompted(pixels(), None) * precise.encode_prompted(pixels(), None)).sum(-1)
    assert cosine.min() > 0.99


def test_a_head_of_other_weights_is_refused_while_images_are_served(tmp_path: Path) -> None:
    write_head(tmp_path, "another fingerprint")
    image = open_convolutional(tmp_path).image
    assert image.encode(pixels()).shape == (2, JOINT)
    with pytest.raises(BackboneError, match="other weights"):
        image.stem(pixels())


def test_a_damaged_or_misshapen_head_is_refused(folder: Path) -> None:
    fingerprint = open_convolutional(None).fingerprint
    write_head(folder, fingerprint, embed_dim=JOINT + 1)
    with pytest.raises(BackboneError, match="widths"):
        open_convolutional(folder).image.stem(pixels())
    (folder / WEIGHTS_FILE).write_bytes(b"not a tensor file")
    with pytest.raises(BackboneError, match="cannot be read"):
        open_convolutional(folder).image.stem(pixels())


@pytest.fixture(scope="module")
def bundled() -> Backbone:
    return load_backbone("bundled", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BUNDLED_DIR / CONFIG_FILE).read_text(encoding="utf-8"))
    return found


def test_the_bundled_head_is_small_and_belongs_to_the_bundled_backbone(
    bundled: Backbone, record: dict[str, Any]
) -> None:
    assert (BUNDLED_DIR / WEIGHTS_FILE).stat().st_size <= 2.5 * MEGABYTE
    assert record["backbone"] == bundled.fingerprint
    assert bundled.image.promptable


def test_the_bundled_token_path_gives_the_recorded_embedding(bundled: Backbone, record: dict[str, Any]) -> None:
    found = bundled.image.encode_prompted(bundled.preprocess.pixels(generated_image())[None], None)
    assert torch.cosine_similarity(found, torch.tensor([record["reference"]])).item() >= 0.9999


def test_the_recorded_accuracy_without_prompts_is_not_below_the_plain_paths(record: dict[str, Any]) -> None:
    gaps = {name: figures["tokens"] - figures["plain"] for name, figures in record["development"].items()}
    assert sum(gaps.values()) / len(gaps) >= 0
    assert min(gaps.values()) >= -1.5, gaps  # the smallest set has 280 images: a point is three of them


def test_a_few_steps_teach_prompts_to_turn_the_bundled_embedding(bundled: Backbone) -> None:
    image = bundled.image
    stem = image.stem(bundled.preprocess.pixels(generated_image())[None])
    tokens = torch.randn(image.depth, 4, image.token_width, generator=torch.Generator().manual_seed(0)) * 0.02
    prompts = VisualPrompts(tokens.requires_grad_())
    optimizer, without = torch.optim.AdamW([tokens], lr=0.05), image.encode_stem(stem, None)
    for _ in range(15):
        optimizer.zero_grad()
        cosine = (image.encode_stem(stem, prompts) * without).sum()
        cosine.backward()
        optimizer.step()
    assert cosine.item() < 0.9
