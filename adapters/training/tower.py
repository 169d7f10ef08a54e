"""The model under training: open_clip's own CLIP class, and a text pass that is fast on short prompts.

open_clip pads every prompt to the context length. With a causal mask and pooling at the end token, whatever
follows that token changes nothing, so training trims each batch to its longest prompt.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip import CLIP, SimpleTokenizer
from torch import Tensor, nn

from adapters.training.trunk import IMAGE_SIZE, load_trunk

EMBED_DIM = 256
CONTEXT_LENGTH = 32
HEADS = 4
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_model_pretrained": False,
        "timm_pool": "",  # the trunk's own average pooling
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": IMAGE_SIZE,
    },
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 256, "heads": HEADS, "layers": 4},
}


def build_model() -> CLIP:
    """A new model with the trunk's public weights; the text tower and the projection are random."""
    model = CLIP(**MODEL_CONFIG)
    cast(nn.Module, model.visual.trunk).load_state_dict(load_trunk().state_dict(), strict=False)
    cast(nn.Module, model.visual.trunk).requires_grad_(False)
    return model


def tokenizer() -> SimpleTokenizer:
    """CLIP's byte-pair tokenizer at the model's context length."""
    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


class PromptTokenizer:
    """Token ids of templated names from cached pieces: byte pairs never reach across a word, so pieces add up."""

    def __init__(self) -> None:
        self._tokenizer = tokenizer()
        self._encode = lru_cache(maxsize=None)(self._tokenizer.encode)

    def __call__(self, prompts: Sequence[tuple[str, str]]) -> Tensor:
        """[B, context] for (template, name) pairs; the template `{}` is the bare name."""
        tokens_BL = torch.zeros(len(prompts), CONTEXT_LENGTH, dtype=torch.long)
        for row, (template, name) in enumerate(prompts):
            before, after = template.split("{}")
            pieces = [*self._encode(before), *self._encode(name), *self._encode(after)]
            ids = [self._tokenizer.sot_token_id, *pieces[: CONTEXT_LENGTH - 2], self._tokenizer.eot_token_id]
            tokens_BL[row, : len(ids)] = torch.tensor(ids)
        return tokens_BL


@lru_cache
def _causal_mask(length: int, dtype: torch.dtype) -> Tensor:
    return torch.full((length, length), float("-inf"), dtype=dtype).triu(1)


def _attend(block: nn.Module, hidden_BLD: Tensor) -> Tensor:
    batch, length, width = hidden_BLD.shape
    attention = cast(nn.MultiheadAttention, block.attn)
    joint = F.linear(
        hidden_BLD,
        cast(Tensor, attention.in_proj_weight).to(hidden_BLD.dtype),
        cast(Tensor, attention.in_proj_bias).to(hidden_BLD.dtype),
    )
    query, key, value = joint.view(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
    # written out: the fused kernel's backward pass is several times slower on sequences this short
    scores_BHLL = query @ key.transpose(-1, -2) * (width // HEADS) ** -0.5 + _causal_mask(length, query.dtype)
    mixed = scores_BHLL.softmax(-1) @ value
    return linear(attention.out_proj, mixed.transpose(1, 2).reshape(batch, length, width))


def linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """The layer in the precision of its inputs: float32 weights stay the master copy."""
    return F.linear(inputs, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))


def norm(layer: nn.LayerNorm, inputs: Tensor) -> Tensor:
    """Layer norm in the precision of its inputs."""
    return F.layer_norm(inputs, layer.normalized_shape, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))


def encode_text(model: CLIP, tokens_BL: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Unit-norm text features [B, embed_dim] in float32, computed in `dtype` on the trimmed prompts."""
    end_B = tokens_BL.argmax(-1)
    length = int(end_B.max()) + 1
    hidden_BLD = F.embedding(tokens_BL[:, :length], model.token_embedding.weight, sparse=True).to(dtype)
    hidden_BLD = hidden_BLD + model.positional_embedding[:length].to(dtype)
    for block in model.transformer.resblocks:
        hidden_BLD = hidden_BLD + _attend(block, norm(block.ln_1, hidden_BLD))
        inner = F.gelu(linear(block.mlp.c_fc, norm(block.ln_2, hidden_BLD)))
        hidden_BLD = hidden_BLD + linear(block.mlp.c_proj, inner)
    pooled_BD = norm(model.ln_final, hidden_BLD[torch.arange(len(end_B)), end_B]).float()
    return F.normalize(pooled_BD @ model.text_projection, dim=-1)


def encode_features(model: CLIP, features_BF: Tensor) -> Tensor:
    """Unit-norm image features [B, embed_dim] from the trunk's pooled features [B, 1280]."""
    projected: Tensor = model.visual.head(features_BF)
    return F.normalize(projected, dim=-1)
