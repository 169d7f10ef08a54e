"""Image features of support images and of random views of them, made once per fit: the image tower is frozen.

Tensor suffixes: N support images, V views with the plain one first, D joint width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adapters.base import Support
from adapters.clip import Backbone
from adapters.text.chunked import Tick, nothing
from adapters.vision.views import random_views

IMAGES_AT_ONCE = 32
"""Images per tower pass. Bounds the length of a slice."""


@torch.no_grad()
def support_features(backbone: Backbone, support: Support, *, views: int, seed: int, tick: Tick = nothing) -> Tensor:
    """Unit float32 rows [N, 1 + views, D] on the backbone's device; view 0 is the image as it would be served."""
    rows = max(1, IMAGES_AT_ONCE // (1 + views))
    parts_nVD = []
    for start in range(0, len(support), rows):
        plain_n3SS = support.pixels[start : start + rows]
        pixels_nV3SS = torch.cat([plain_n3SS[:, None], random_views(plain_n3SS, views, seed=seed)], dim=1)
        features = backbone.image.encode_reference(pixels_nV3SS.flatten(0, 1))
        parts_nVD.append(features.view(len(plain_n3SS), 1 + views, -1))
        tick()
    return torch.cat(parts_nVD)


def feature_ticks(support: int, views: int) -> int:
    """How often `support_features` ticks."""
    return -(-support // max(1, IMAGES_AT_ONCE // (1 + views)))
