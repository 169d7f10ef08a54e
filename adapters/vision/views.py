"""Random views of images that are already pixels: a crop of half to all of the area, mirrored half of the time.

Tensor suffixes: N images, V views, S image side.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF  # torchvision's own convention

SMALLEST_AREA = 0.5
WIDEST_ASPECT = 4 / 3


def random_views(pixels_N3SS: Tensor, count: int, *, seed: int) -> Tensor:
    """uint8 [N, 3, S, S] to uint8 [N, count, 3, S, S], on the device of the pixels. The draws for an image come from
    the seed and its own content, so that neither its place nor its neighbours change its views."""
    side = pixels_N3SS.shape[-1]
    views_NV3SS = pixels_N3SS.new_empty(len(pixels_N3SS), count, 3, side, side)
    for row, image_3SS in enumerate(pixels_N3SS):
        generator = torch.Generator().manual_seed(_content_seed(image_3SS, seed))
        for view in range(count):
            views_NV3SS[row, view] = random_view(image_3SS, generator)
    return views_NV3SS


def random_view(image_3SS: Tensor, generator: torch.Generator) -> Tensor:
    """One random resized crop, perhaps mirrored, of the same size and type."""
    side = image_3SS.shape[-1]
    area, aspect, down, right, mirrored = torch.rand(5, generator=generator).tolist()
    area = side * side * (SMALLEST_AREA + (1 - SMALLEST_AREA) * area)
    stretch = math.exp((2 * aspect - 1) * math.log(WIDEST_ASPECT) / 2)
    height, width = (min(side, round(math.sqrt(area) * s)) for s in (1 / stretch, stretch))
    top, left = round(down * (side - height)), round(right * (side - width))
    view_3SS: Tensor = TF.resized_crop(
        image_3SS, top, left, height, width, [side, side], interpolation=InterpolationMode.BICUBIC
    )
    return view_3SS.flip(-1) if mirrored < 0.5 else view_3SS


def _content_seed(image_3SS: Tensor, seed: int) -> int:
    """32 bits, which is all that torch's CPU generator makes use of."""
    return zlib.crc32(image_3SS.cpu().contiguous().numpy().tobytes(), zlib.crc32(seed.to_bytes(8, "little")))
