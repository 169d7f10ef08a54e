"""Stems of support images: what of an image pass comes before any visual prompt, made once per fit where it fits.

Tensor suffixes: N support images, B images of a step, V views with the plain one first, S image side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adapters.base import Support, VisualPrompts
from adapters.clip import Backbone
from adapters.learning.support_features import IMAGES_AT_ONCE
from adapters.text.chunked import Tick, nothing
from adapters.vision.views import random_views

BUDGET_BYTES = 512 * 2**20
"""Stems above this are not kept: each step makes those of its images anew."""


class SupportStems:
    """One stem per image and view. Raises `BackboneError` when the image tower is not promptable."""

    def __init__(
        self, backbone: Backbone, support: Support, *, views: int, seed: int, budget: int = BUDGET_BYTES,
        tick: Tick = nothing,
    ) -> None:  # fmt: skip
        self._tower, self._pixels_N3SS = backbone.image, support.pixels
        self._views, self._seed = views, seed
        one = self._tower.stem(support.pixels[:1])
        kept = one.numel() * one.element_size() * len(support) * (1 + views) <= budget
        self._kept = self._all(tick) if kept else None

    def plain(self, rows_B: Tensor) -> Tensor:
        """Stems of images as they would be served."""
        return self._stems(rows_B, torch.zeros_like(rows_B))

    def drawn(self, seed: int) -> Callable[[Tensor], Tensor]:
        """Stems of one view per image, drawn anew at each call."""
        generator = torch.Generator().manual_seed(seed)
        return lambda rows_B: self._stems(
            rows_B, torch.randint(1 + self._views, rows_B.shape, generator=generator).to(rows_B.device)
        )

    @torch.no_grad()
    def features(self, rows: Tensor, prompts: VisualPrompts | None) -> Tensor:
        """Unit features of the plain views under these prompts."""
        parts = [self._tower.encode_stem(self.plain(part), prompts) for part in rows.split(IMAGES_AT_ONCE)]
        return torch.cat(parts)

    def _stems(self, rows_B: Tensor, views_B: Tensor) -> Tensor:
        if self._kept is not None:
            return self._kept[rows_B, views_B]
        chosen = [self._view(self._pixels_N3SS[row], view) for row, view in zip(rows_B, views_B.tolist(), strict=True)]
        return self._tower.stem(torch.stack(chosen))

    def _view(self, image_3SS: Tensor, view: int) -> Tensor:
        return image_3SS if view == 0 else random_views(image_3SS[None], view, seed=self._seed)[0, view - 1]

    def _all(self, tick: Tick) -> Tensor:
        rows = max(1, IMAGES_AT_ONCE // (1 + self._views))
        parts = []
        for start in range(0, len(self._pixels_N3SS), rows):
            plain = self._pixels_N3SS[start : start + rows]
            pixels = torch.cat([plain[:, None], random_views(plain, self._views, seed=self._seed)], dim=1)
            stems = self._tower.stem(pixels.flatten(0, 1))
            parts.append(stems.view(len(plain), 1 + self._views, *stems.shape[1:]))
            tick()
        return torch.cat(parts)
