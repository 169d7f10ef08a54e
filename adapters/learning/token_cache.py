"""Image tokens of support images and of random views of them, made once per fit: the image tower is frozen.

Tensor suffixes: N support images, V views with the plain one first, T tokens, D joint width; n chosen rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.base import Support
from adapters.clip import Backbone
from adapters.text.chunked import Tick, nothing
from adapters.vision.views import random_views

IMAGES_AT_ONCE = 32
"""Images per tower pass. Bounds the length of a slice."""

MOST_BYTES = 2**30
"""Room for the tokens; with many support images it holds fewer views of each."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenCache:
    """Tokens in half precision to save room, image features [N, V, D] as they are."""

    tokens_NVTD: Tensor
    features_NVD: Tensor

    @property
    def views(self) -> int:
        """Random views of each image, besides the plain one."""
        return self.features_NVD.shape[1] - 1

    def of(self, rows_n: Tensor, views_n: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [n, T, D] and features [n, D] of one view of each chosen image."""
        return self.tokens_NVTD[rows_n, views_n].float(), self.features_NVD[rows_n, views_n]


def support_tokens(
    backbone: Backbone, support: Support, *, views: int, seed: int, most_bytes: int = MOST_BYTES, tick: Tick = nothing
) -> TokenCache:
    """At most `views` random views per image, fewer where their tokens would take more than `most_bytes`. Raises
    `BackboneError` when the image tower has no tokens."""
    tower = backbone.image
    probe_TD = tower.stem_tokens(tower.stem(support.pixels[:1]))[0][0]
    room = most_bytes // (len(support) * probe_TD.numel() * 2)
    views = max(0, min(views, room - 1))
    tokens_NVTD = torch.empty(len(support), 1 + views, *probe_TD.shape, dtype=torch.float16, device=probe_TD.device)
    features_NVD = torch.empty(len(support), 1 + views, probe_TD.shape[-1], device=probe_TD.device)
    rows = max(1, IMAGES_AT_ONCE // (1 + views))
    for start in range(0, len(support), rows):
        part = slice(start, start + rows)
        plain_n3SS = support.pixels[part]
        pixels_nV3SS = torch.cat([plain_n3SS[:, None], random_views(plain_n3SS, views, seed=seed)], dim=1)
        tokens, features = tower.stem_tokens(tower.stem(pixels_nV3SS.flatten(0, 1)))
        tokens_NVTD[part] = tokens.view(len(plain_n3SS), 1 + views, *tokens.shape[1:]).half()
        features_NVD[part] = features.view(len(plain_n3SS), 1 + views, -1)
        tick()
    return TokenCache(tokens_NVTD, features_NVD)


def cache_ticks(images: int, views: int) -> int:
    """How often `support_tokens` ticks."""
    return -(-images // max(1, IMAGES_AT_ONCE // (1 + views)))
