"""A timm vision transformer inside open_clip's `TimmModel`, opened."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from adapters.base import VisualPrompts
from adapters.vision.sequence import run


class TrunkTokens:
    """`visual` of a model whose `trunk` is timm's `VisionTransformer`: pooled by class token, average or attention,
    with or without register tokens and first norm."""

    version = ""

    def __init__(self, visual: Any) -> None:
        self._trunk, self._head = visual.trunk, visual.head
        self.token_width = int(self._trunk.embed_dim)
        self.depth = len(self._trunk.blocks)

    def stem(self, images_B3SS: Tensor) -> Tensor:
        embedded: Tensor = self._trunk._pos_embed(self._trunk.patch_embed(images_B3SS))
        return embedded

    def features(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        return self._pooled(self._run(stem, prompts))

    def tokens(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        x_BTV = self._run(stem, None)
        return self._head(self._trunk.head(x_BTV)), self._pooled(x_BTV)

    def _run(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        return run(stem, prompts, norm=self._trunk.norm_pre, blocks=self._trunk.blocks)

    def _pooled(self, x_BTV: Tensor) -> Tensor:
        features: Tensor = self._head(self._trunk.forward_head(self._trunk.norm(x_BTV)))
        return features
