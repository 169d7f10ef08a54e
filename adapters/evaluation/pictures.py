"""The test images of one set, seen through one backbone as often as the methods ask: as features, pixels, or stems.

Tensor suffixes: B images of a batch, C classes, S image side, V views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from adapters.base import Adapter, ClassState, ImageAdapter, cosine_logits
from adapters.clip import Backbone
from adapters.errors import BackboneError
from adapters.evaluation.datasets import ImageSet, encode, open_image, read_pixels

BATCH = 32
KEPT_BYTES = 2**30
"""Pixels and stems of a set stay in memory up to this size; beyond it they are made again each time."""
VIEWS_SEED = 0
"""Random views are the same for every method and every seed of a fit."""

Told = Callable[[int], None]


class Pictures:
    """Lazy and cached. `cache` is a folder that keeps image features between runs."""

    def __init__(self, images: ImageSet, backbone: Backbone, *, cache: Path | None = None) -> None:
        self.images = images
        self._backbone = backbone
        self._cache = cache
        self._features: Tensor | None = None
        self._pixels: dict[int, Tensor] = {}
        self._stems: dict[int, Tensor] = {}

    def features(self, progress: Told | None = None) -> Tensor:
        """Unit rows of all images, on the CPU."""
        if self._features is None:
            self._features = encode(self.images, self._backbone, cache=self._cache, progress=progress).features_ND
        return self._features

    def logits(self, adapter: Adapter, state: ClassState, rows: Sequence[int], tick: Told) -> Tensor:
        """Logits [len(rows), C] by whatever path the state needs; `tick` is told the images of each batch."""
        needs = adapter.needs(state)
        if needs.scored_by:
            assert isinstance(adapter, ImageAdapter)
            batches = self._views(rows, needs.views) if needs.views > 1 else self._batches(rows, self._pixel)
            parts: Iterable[Tensor] = (adapter.logits(pixels, state, self._backbone) for pixels in batches)
        elif needs.prompts:
            parts = (self._prompted(stems, state) for stems in self._batches(rows, self._stem))
        else:
            parts = [cosine_logits(self.features()[list(rows)], state)]
        found = []
        for part in parts:
            found.append(part.detach().float().cpu())
            tick(len(found[-1]))
        return torch.cat(found)

    def release(self) -> None:
        """Forgets pixels and stems; features are small and stay."""
        self._pixels.clear()
        self._stems.clear()

    def _prompted(self, stem: Tensor, state: ClassState) -> Tensor:
        image = self._backbone.image
        if not image.promptable:
            raise BackboneError(f"the image tower of {self._backbone.name} takes no visual prompts")
        with torch.no_grad():
            return cosine_logits(image.encode_stem(stem.to(image.device), state.visual_prompts), state)

    def _batches(self, rows: Sequence[int], one: Callable[[int], Tensor]) -> Iterator[Tensor]:
        for start in range(0, len(rows), BATCH):
            yield torch.stack([one(row) for row in rows[start : start + BATCH]])

    def _views(self, rows: Sequence[int], views: int) -> Iterator[Tensor]:
        """[1, V, 3, S, S] each: the views of one image are batch enough."""
        for row in rows:
            image = open_image(self.images.paths[row])
            yield self._backbone.preprocess.views(image, views, seed=VIEWS_SEED)[None]

    def _pixel(self, row: int) -> Tensor:
        return self._kept(self._pixels, row, lambda: read_pixels(self.images.paths[row], self._backbone))

    def _stem(self, row: int) -> Tensor:
        def made() -> Tensor:
            with torch.no_grad():
                return self._backbone.image.stem(self._pixel(row)[None])[0].cpu()

        return self._kept(self._stems, row, made)

    def _kept(self, store: dict[int, Tensor], row: int, make: Callable[[], Tensor]) -> Tensor:
        if row in store:
            return store[row]
        made = make()
        if made.nbytes * len(self.images.paths) <= KEPT_BYTES:
            store[row] = made
        return made
