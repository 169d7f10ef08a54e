"""Random resized crops of a decoded image, the views of per-image prompt tuning (TPT, arXiv 2209.07511)."""

from __future__ import annotations

import math
import random

from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF  # torchvision's own convention

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
DRAWS = 10
"""Draws of a box before the largest central one is taken, for images too narrow for the drawn aspect."""

Box = tuple[int, int, int, int]


def random_crop(image: Image.Image, side: int, draw: random.Random) -> Tensor:
    """One crop of the RGB image, resized to uint8 [3, side, side] and mirrored half of the time."""
    view = image.crop(random_box(*image.size, draw)).resize((side, side), Image.Resampling.BICUBIC)
    if draw.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels: Tensor = TF.pil_to_tensor(view)
    return pixels


def random_box(width: int, height: int, draw: random.Random) -> Box:
    """Left, top, right and bottom of a box of random area and aspect that lies in the image."""
    for _ in range(DRAWS):
        area = width * height * draw.uniform(*AREA)
        aspect = math.exp(draw.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = draw.randint(0, width - w), draw.randint(0, height - h)
            return left, top, left + w, top + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    """The largest central box whose aspect is allowed."""
    w = min(width, max(1, round(height * ASPECT[1])))
    h = min(height, max(1, round(width / ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
