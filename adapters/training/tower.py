"""The model under training: open_clip's own CLIP class, and a text pass that is fast on short prompts.

open_clip pads every prompt to the context length. With a causal mask and pooling at the end token, whatever
follows that token changes nothing, so training trims each batch to its longest prompt.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip import CLIP, SimpleTokenizer
from torch import Tensor, nn

from adapters.training.trunk import IMAGE_SIZE, load_trunk

EMBED_DIM = 288  # also the width of the text tower, which bounds the rank of the joint space
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
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": 49408,
        "width": EMBED_DIM,
        "heads": HEADS,
        "layers": 4,
    },
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

    def length(self, text: str) -> int:
        """Number of tokens of a text, without start and end."""
        return len(self._encode(text))

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
def _causal_mask(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows are the last ones of a square mask."""
    return torch.full((rows, columns), float("-inf"), dtype=dtype).triu(1 + columns - rows)


_converted: dict[int, Tensor] | None = None


@contextmanager
def converted_once() -> Iterator[None]:
    """Convert each weight to another precision only once within the block; weights must not change there."""
    global _converted  # noqa: PLW0603  # one training loop a process
    _converted = {}
    try:
        yield
    finally:
        _converted = None


def _in_precision(weight: Tensor, dtype: torch.dtype) -> Tensor:
    if _converted is None or weight.dtype == dtype:
        return weight.to(dtype)
    if id(weight) not in _converted:
        _converted[id(weight)] = weight.to(dtype)
    return _converted[id(weight)]


def _project(block: nn.Module, hidden_BLD: Tensor) -> Tensor:
    """Queries, keys and values [3, B, H, L, D / H]."""
    batch, length, width = hidden_BLD.shape
    attention = cast(nn.MultiheadAttention, block.attn)
    joint = F.linear(
        hidden_BLD,
        _in_precision(cast(Tensor, attention.in_proj_weight), hidden_BLD.dtype),
        _in_precision(cast(Tensor, attention.in_proj_bias), hidden_BLD.dtype),
    )
    return joint.view(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)


def _attend(block: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch, heads, rows, width = query.shape
    # written out: the fused kernel's backward pass is several times slower on sequences this short
    scores_BHLL = query @ key.transpose(-1, -2) * width**-0.5 + _causal_mask(rows, key.shape[2], query.dtype)
    mixed = scores_BHLL.softmax(-1) @ value
    output = cast(nn.MultiheadAttention, block.attn).out_proj
    return linear(output, mixed.transpose(1, 2).reshape(batch, rows, heads * width))


def _feed_forward(block: nn.Module, hidden_BLD: Tensor) -> Tensor:
    mlp = cast(nn.Sequential, block.mlp)
    inner = F.gelu(linear(cast(nn.Linear, mlp.c_fc), norm(cast(nn.LayerNorm, block.ln_2), hidden_BLD)))
    return hidden_BLD + linear(cast(nn.Linear, mlp.c_proj), inner)


def linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """The layer in the precision of its inputs: float32 weights stay the master copy."""
    return F.linear(inputs, _in_precision(layer.weight, inputs.dtype), _in_precision(layer.bias, inputs.dtype))


def norm(layer: nn.LayerNorm, inputs: Tensor) -> Tensor:
    """Layer norm in the precision of its inputs."""
    weight, bias = _in_precision(layer.weight, inputs.dtype), _in_precision(layer.bias, inputs.dtype)
    return F.layer_norm(inputs, layer.normalized_shape, weight, bias)


def _embed(model: CLIP, tokens_BL: Tensor, start: int, dtype: torch.dtype) -> Tensor:
    embedded = F.embedding(tokens_BL, model.token_embedding.weight, sparse=True).to(dtype)
    positions: Tensor = model.positional_embedding[start : start + tokens_BL.shape[1]]
    return embedded + positions.to(dtype)


def _pool(model: CLIP, hidden_BLD: Tensor, end_B: Tensor) -> Tensor:
    pooled_BD = norm(model.ln_final, hidden_BLD[torch.arange(len(end_B)), end_B]).float()
    return F.normalize(pooled_BD @ model.text_projection, dim=-1)


def encode_text(model: CLIP, tokens_BL: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Unit-norm text features [B, embed_dim] in float32, computed in `dtype` on the trimmed prompts."""
    end_B = tokens_BL.argmax(-1)
    hidden_BLD = _embed(model, tokens_BL[:, : int(end_B.max()) + 1], 0, dtype)
    for block in model.transformer.resblocks:
        hidden_BLD = hidden_BLD + _attend(block, *_project(block, norm(block.ln_1, hidden_BLD)))
        hidden_BLD = _feed_forward(block, hidden_BLD)
    return _pool(model, hidden_BLD, end_B)


def encode_continued(model: CLIP, shared: int, tokens_BL: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The same for prompts with `shared` equal first tokens, which the causal tower needs to pass through only once."""
    end_B = tokens_BL.argmax(-1)
    begin = _embed(model, tokens_BL[:1, :shared], 0, dtype)
    rest = _embed(model, tokens_BL[:, shared : int(end_B.max()) + 1], shared, dtype)
    for block in model.transformer.resblocks:
        first = _project(block, norm(block.ln_1, begin))
        query, key, value = _project(block, norm(block.ln_1, rest))
        keys = torch.cat([first[1].expand(len(rest), -1, -1, -1), key], dim=2)
        values = torch.cat([first[2].expand(len(rest), -1, -1, -1), value], dim=2)
        begin = _feed_forward(block, begin + _attend(block, *first))
        rest = _feed_forward(block, rest + _attend(block, query, keys, values))
    return _pool(model, rest, end_B - shared)


def encode_features(model: CLIP, features_BF: Tensor) -> Tensor:
    """Unit-norm image features [B, embed_dim] from the trunk's pooled features [B, 1280]."""
    projected: Tensor = model.visual.head(features_BF)
    return F.normalize(projected, dim=-1)
