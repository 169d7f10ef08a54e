"""A small transformer over the map of a convolutional trunk: it gives prompts something to join.

Its embedding is `base_weight` times the plain unit embedding plus the unit vector that the transformer reads out at
its class token: without the second normalisation the transformer learns to drown the plain path out.
Tensor suffixes: B images, T tokens (class token first), F map channels, V token width, D joint width.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.errors import BackboneError

WEIGHTS_FILE, CONFIG_FILE = "token_head.safetensors", "token_head.json"


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Sizes of a head: map channels and positions in, joint width out."""

    channels: int
    positions: int
    embed_dim: int
    width: int = 160
    heads: int = 5
    depth: int = 4
    inner: int = 320
    base_weight: float = 1.0


class HeadBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_mix, self.norm_think = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.rise, self.fall = nn.Linear(shape.width, shape.inner), nn.Linear(shape.inner, shape.width)

    def forward(self, x_BTV: Tensor) -> Tensor:
        x_BTV = x_BTV + self._mix(self.norm_mix(x_BTV))
        thought: Tensor = self.fall(F.gelu(self.rise(self.norm_think(x_BTV))))
        return x_BTV + thought

    def _mix(self, x_BTV: Tensor) -> Tensor:
        batch, length, width = x_BTV.shape
        split = self.qkv(x_BTV).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        # written out: on sequences this short the fused kernel is slower, its backward pass several times
        share = (query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
        mixed: Tensor = self.out((share @ value).transpose(1, 2).reshape(batch, length, width))
        return mixed


class TokenHead(nn.Module):
    """Map to sequence (`embed`), sequence through `norm_pre` and `blocks`, class token to `read`."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        self.enter = nn.Linear(shape.channels, shape.width)
        self.position = nn.Parameter(torch.randn(shape.positions + 1, shape.width) * 0.02)
        self.norm_pre = nn.LayerNorm(shape.width)
        self.blocks = nn.ModuleList(HeadBlock(shape) for _ in range(shape.depth))
        self.norm_post = nn.LayerNorm(shape.width)
        self.readout = nn.Linear(shape.width, shape.embed_dim)

    def embed(self, map_BFHW: Tensor) -> Tensor:
        """The sequence [B, T, V]: the pooled map as class token, then the map row by row."""
        entered_BTV = self.enter(map_BFHW.flatten(2).transpose(1, 2))
        with_class: Tensor = torch.cat([entered_BTV.mean(1, keepdim=True), entered_BTV], dim=1)
        return with_class + self.position.to(with_class.dtype)

    def read(self, x_BTV: Tensor) -> Tensor:
        """What the transformer says about the images, unit rows [B, D]."""
        return F.normalize(self.readout(self.norm_post(x_BTV[:, 0])), dim=-1)


def save_head(head: TokenHead, folder: Path, *, backbone: str, facts: dict[str, object]) -> None:
    """Half-precision weights and their description; `backbone` is the fingerprint that the head belongs to."""
    state = {name: value.detach().half().contiguous() for name, value in head.state_dict().items()}
    (folder / WEIGHTS_FILE).write_bytes(save(state))
    record = {"backbone": backbone, "shape": asdict(head.shape), **facts}
    (folder / CONFIG_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def load_head(folder: Path, *, backbone: str) -> tuple[TokenHead, str]:
    """A head and the hash of its weights. Raises `BackboneError` if it is damaged or belongs to other weights."""
    try:
        record = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if record["backbone"] != backbone:
            raise BackboneError("its token head was trained for other weights; train it anew")
        head = TokenHead(HeadShape(**record["shape"]))
        head.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS_FILE).items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BackboneError(f"its token head cannot be read: {error}") from error
    digest = hashlib.sha256(json.dumps(record["shape"], sort_keys=True).encode())
    digest.update((folder / WEIGHTS_FILE).read_bytes())
    return head.eval().requires_grad_(False), digest.hexdigest()
