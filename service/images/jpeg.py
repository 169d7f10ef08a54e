"""JPEG bytes to RGB with libjpeg-turbo's vector code. What it does not do, or warns about, is left to Pillow."""

from __future__ import annotations

from typing import Any

import simplejpeg
import torch
from PIL import Image
from torch import Tensor

HALVING = 13.5
"""Images whose shorter side is this many times the tower's are decoded at half size. Halving in the decoder averages
2 x 2 pixels, and its aliasing stays visible to the tower for long: cosines of dense photo mosaics to the exact pixels
are 0.9982 at 4.6 times, 0.9992 at 8 times, and 0.9999 only from here on."""


def decode_rgb(data: bytes, header: Image.Image, *, side: int) -> Tensor | None:
    """uint8 [H, W, 3] of the JPEG whose `header` Pillow has read, for a tower of so many pixels a `side`; None where
    Pillow has to decode it: other formats, CMYK, and data that is damaged in any way."""
    if header.format not in ("JPEG", "MPO") or header.mode not in ("RGB", "L"):
        return None
    scale: dict[str, Any] = {}
    if min(header.size) >= HALVING * side:
        width, height = header.size
        scale = {"min_width": -(-width // 2), "min_height": -(-height // 2), "min_factor": 2}
    try:
        return torch.from_numpy(simplejpeg.decode_jpeg(data, colorspace="RGB", **scale))
    except (ValueError, MemoryError):  # strict: also for what other decoders would only warn about
        return None
