"""Image towers opened for prompts and tokens: the plain path unchanged, prompts where the papers put them."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor
from torch.nn import functional as F

from adapters.base import VisualPrompts
from adapters.clip import Backbone, open_backbone
from adapters.errors import BackboneError

SIDE = 32
TIMM: dict[str, Any] = {"timm_model_pretrained": False, "image_size": SIDE}
TOWERS: dict[str, dict[str, Any]] = {
    "native": {"layers": 3, "width": 64, "head_width": 32, "patch_size": 8, "image_size": SIDE},
    "native-average": {
        "layers": 3, "width": 64, "head_width": 32, "patch_size": 8, "image_size": SIDE,
        "pool_type": "avg", "final_ln_after_pool": True,
    },
    "timm-class-token": {**TIMM, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"},
    "timm-average": {**TIMM, "timm_model_name": "test_vit2", "timm_pool": "avg", "timm_proj": "mlp"},
    "timm-attention": {**TIMM, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "linear"},
}  # fmt: skip


def backbone_of(vision: dict[str, Any], cls: Any = open_clip.CustomTextCLIP,
                dtype: torch.dtype = torch.float32) -> Backbone:  # fmt: skip
    torch.manual_seed(5)
    text = open_clip.CLIPTextCfg(context_length=24, width=64, heads=2, layers=1)
    model = cls(embed_dim=64, vision_cfg=open_clip.CLIPVisionCfg(**vision), text_cfg=text)
    if hasattr(getattr(model.visual, "trunk", None), "set_input_size"):
        model.visual.set_input_size(SIDE)
    for parameter in model.parameters():
        if parameter.abs().max() < 1e-3:  # zeros and layer scales would hide what a part does
            torch.nn.init.normal_(parameter, std=0.1)
    transform = image_transform_v2(PreprocessCfg(size=SIDE), is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    return open_backbone(model, transform, tokenizer, name="tiny", dtype=dtype)


def pixels(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def prompts_for(backbone: Backbone, *shape: int, before_norm: bool = False) -> VisualPrompts:
    tokens = torch.randn(*shape, backbone.image.token_width, generator=torch.Generator().manual_seed(2))
    return VisualPrompts(tokens, before_norm)


@pytest.fixture(params=TOWERS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return backbone_of(TOWERS[request.param])


def test_without_prompts_the_opened_tower_equals_encode_image(backbone: Backbone) -> None:
    image = backbone.image
    assert torch.allclose(image.encode_stem(image.stem(pixels()), None), image.encode(pixels()), atol=1e-5)


def test_a_set_of_no_prompts_changes_nothing(backbone: Backbone) -> None:
    image = backbone.image
    assert torch.allclose(
        image.encode_prompted(pixels(), prompts_for(backbone, 2, 0)), image.encode(pixels()), atol=1e-5
    )


@pytest.mark.parametrize("before_norm", [False, True])
def test_prompts_of_every_layer_change_the_embedding_and_get_a_gradient(backbone: Backbone, before_norm: bool) -> None:
    tokens = prompts_for(backbone, backbone.image.depth, 2).tokens.requires_grad_()
    stem = backbone.image.stem(pixels())
    prompted = backbone.image.encode_stem(stem, VisualPrompts(tokens, before_norm))
    (prompted * torch.linspace(-1, 1, 64)).sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad.norm(dim=-1) > 0).all()
    assert not torch.allclose(prompted, backbone.image.encode(pixels()), atol=1e-4)


def test_one_set_of_prompts_per_image_equals_separate_batches(backbone: Backbone) -> None:
    image, prompts = backbone.image, prompts_for(backbone, 3, 2, 4)
    together = image.encode_prompted(pixels(), prompts)
    apart = [image.encode_prompted(pixels()[row : row + 1], VisualPrompts(prompts.tokens[row])) for row in range(3)]
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


def test_tokens_are_projected_and_come_with_the_image_features(backbone: Backbone) -> None:
    tokens, features = backbone.image.stem_tokens(backbone.image.stem(pixels()))
    assert (tokens.shape[0], tokens.shape[2]) == (3, 64)
    assert torch.allclose(F.normalize(features, dim=-1), backbone.image.encode(pixels()), atol=1e-5)


@pytest.mark.parametrize("name", ["native", "timm-average"])
def test_a_bf16_tower_runs_prompts_of_any_size_without_nan(name: str) -> None:
    backbone = backbone_of(TOWERS[name], dtype=torch.bfloat16)
    tokens = (prompts_for(backbone, 2, 4).tokens * 100).requires_grad_()
    prompted = backbone.image.encode_stem(backbone.image.stem(pixels()), VisualPrompts(tokens))
    prompted.sum().backward()
    assert prompted.dtype == torch.float32
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()
    assert torch.allclose(backbone.image.encode_prompted(pixels(), None), backbone.image.encode(pixels()), atol=0.02)


def test_prompts_enter_before_or_after_the_first_norm_as_asked() -> None:
    backbone = backbone_of(TOWERS["native"], open_clip.CLIP)
    before, after = (prompts_for(backbone, 1, 2, before_norm=flag) for flag in (True, False))
    tower = backbone.image
    assert not torch.allclose(
        tower.encode_prompted(pixels(), before), tower.encode_prompted(pixels(), after), atol=1e-3
    )
    scaled = VisualPrompts(before.tokens * 7, before_norm=True)  # the norm takes the length away
    assert torch.allclose(tower.encode_prompted(pixels(), before), tower.encode_prompted(pixels(), scaled), atol=1e-4)


def test_deeper_prompts_take_the_place_of_those_before() -> None:
    backbone = backbone_of(TOWERS["native"])
    tokens = prompts_for(backbone, 2, 2).tokens
    other = torch.cat([tokens[:1] * -1, tokens[1:]])
    first = backbone.image.encode_prompted(pixels(), VisualPrompts(tokens))
    assert not torch.allclose(first, backbone.image.encode_prompted(pixels(), VisualPrompts(other)), atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 2, 64), (2, 2, 63), (2, 2, 2, 64), (0, 2, 64)])
def test_prompts_that_do_not_fit_the_tower_are_refused(shape: tuple[int, ...], tiny_backbone: Backbone) -> None:
    stem = tiny_backbone.image.stem(pixels())
    with pytest.raises(BackboneError, match="prompts"):
        tiny_backbone.image.encode_stem(stem, VisualPrompts(torch.zeros(shape)))


CLOSED: dict[str, dict[str, Any]] = {
    "EfficientNet": {**TIMM, "timm_model_name": "test_efficientnet", "timm_proj": "linear"},
    "VisionTransformerRelPos": {
        **TIMM, "timm_model_name": "test_vit_relpos", "timm_proj": "linear", "timm_pool": "avg",
    },
    "pools by attention": {
        "layers": 1, "width": 64, "head_width": 32, "patch_size": 8, "image_size": SIDE, "attentional_pool": True,
    },
    "ModifiedResNet": {"layers": (1, 1, 1, 1), "width": 8, "head_width": 32, "image_size": SIDE},
}  # fmt: skip


@pytest.mark.parametrize("reason", CLOSED)
def test_a_tower_without_tokens_serves_images_and_says_why_prompts_cannot_join(reason: str) -> None:
    image = backbone_of(CLOSED[reason]).image
    assert image.encode(pixels()).shape == (3, 64)
    assert (image.promptable, image.token_width, image.depth, image.tokens_version) == (False, 0, 0, "")
    with pytest.raises(BackboneError, match=reason):
        image.stem(pixels())
