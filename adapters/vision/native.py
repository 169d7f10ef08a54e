"""open_clip's own vision transformer, opened. Parts are reached by name, so that open_clip need not be imported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.base import VisualPrompts
from adapters.errors import BackboneError
from adapters.vision.sequence import run


class NativeTokens:
    """`visual` of a model with open_clip's `VisionTransformer`. Raises `BackboneError` for poolings without a single
    projected token."""

    version = ""

    def __init__(self, visual: Any) -> None:
        if visual.attn_pool is not None or visual.pool_type == "none":
            raise BackboneError("its vision transformer pools by attention, for which prompts are not supported")
        self._visual = visual
        self.token_width = int(visual.positional_embedding.shape[1])
        self.depth = len(visual.transformer.resblocks)

    def stem(self, images_B3SS: Tensor) -> Tensor:
        visual = self._visual
        patches_BTV = visual.conv1(images_B3SS).flatten(2).transpose(1, 2)
        class_B1V = visual.class_embedding.to(patches_BTV.dtype).expand(len(patches_BTV), 1, -1)
        x_BTV = torch.cat([class_B1V, patches_BTV], dim=1)
        embedded: Tensor = x_BTV + visual.positional_embedding.to(x_BTV.dtype)
        return embedded

    def features(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        return self._project(self._visual._pool(self._run(stem, prompts))[0])

    def tokens(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        x_BTV = self._run(stem, None)
        return self._project(x_BTV), self._project(self._visual._pool(x_BTV)[0])

    def _run(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        return run(stem, prompts, norm=self._visual.ln_pre, blocks=self._visual.transformer.resblocks)

    def _project(self, x: Tensor) -> Tensor:
        projection = self._visual.proj
        projected: Tensor = x if projection is None else x @ projection
        return projected
