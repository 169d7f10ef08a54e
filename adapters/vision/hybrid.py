"""A convolutional trunk with a token head on top, opened."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import VisualPrompts
from adapters.errors import BackboneError
from adapters.vision.sequence import run
from adapters.vision.token_head import TokenHead


class HybridTokens:
    """`visual` of a model with a convolutional timm trunk, and the head that was trained for it.

    A stem is the embedded sequence [B, T, V] with the plain embedding in some rows behind it: prompts change neither,
    and both are far smaller than the map.
    """

    def __init__(self, visual: Any, head: TokenHead, version: str) -> None:
        found = (int(visual.trunk.num_features), int(visual.head(torch.zeros_like(_probe(visual))).shape[-1]))
        if found != (head.shape.channels, head.shape.embed_dim):
            raise BackboneError(f"its token head was made for other widths than the trunk's {found}")
        probe = _probe(visual)
        self._visual, self._head = visual, head.to(probe.device, probe.dtype)
        self.token_width, self.depth, self.version = head.shape.width, head.shape.depth, version
        self._tokens = head.shape.positions + 1

    def stem(self, images_B3SS: Tensor) -> Tensor:
        map_BFHW = self._visual.trunk.forward_features(images_B3SS)
        plain_BD = F.normalize(self._visual.head(self._visual.trunk.forward_head(map_BFHW)), dim=-1)
        rows = -(-plain_BD.shape[1] // self.token_width)
        padded = F.pad(plain_BD, (0, rows * self.token_width - plain_BD.shape[1]))
        return torch.cat([self._head.embed(map_BFHW), padded.view(len(padded), rows, -1)], dim=1)

    def features(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        return self._joined(stem, self._run(stem, prompts))

    def tokens(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        x_BTV = self._run(stem, None)
        return self._head.readout(x_BTV), self._joined(stem, x_BTV)

    def _run(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        return run(stem[:, : self._tokens], prompts, norm=self._head.norm_pre, blocks=self._head.blocks)

    def _joined(self, stem: Tensor, x_BTV: Tensor) -> Tensor:
        plain_BD = stem[:, self._tokens :].flatten(1)[:, : self._head.shape.embed_dim]
        return self._head.shape.base_weight * plain_BD + self._head.read(x_BTV)


def _probe(visual: Any) -> Tensor:
    """One row of pooled features in the tower's precision."""
    weight: Tensor = next(visual.trunk.parameters())
    return torch.zeros(1, int(visual.trunk.num_features), device=weight.device, dtype=weight.dtype)
