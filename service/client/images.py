"""Images as callers have them, to a file name and bytes. Pixels are sent as PNG, so that nothing is lost."""

from __future__ import annotations

import io
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol

from PIL import Image


class PixelArray(Protocol):
    """A NumPy array, or what offers the same interface: uint8 of shape [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


ImageInput = str | PathLike[str] | bytes | Image.Image | PixelArray
"""A file, encoded bytes, a Pillow image, or an array of pixels in RGB order."""

PIXEL_TYPE = "|u1"
CHANNELS = {1, 3, 4}


def encoded(image: ImageInput, place: int) -> tuple[str, bytes]:
    """A file name for the answer to carry, and the bytes. Raises `ValueError` for an array that holds no pixels."""
    if isinstance(image, bytes):
        return f"image-{place}", image
    if isinstance(image, str | PathLike):
        path = Path(fspath(image))
        return path.name, path.read_bytes()
    picture = image if isinstance(image, Image.Image) else from_array(image)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"image-{place}.png", buffer.getvalue()


def from_array(pixels: PixelArray) -> Image.Image:
    """Refuses floats instead of guessing whether they go to 1 or to 255."""
    interface = pixels.__array_interface__
    shape, kind = tuple(interface["shape"]), interface["typestr"]
    if kind != PIXEL_TYPE or len(shape) not in {2, 3} or (len(shape) == 3 and shape[2] not in CHANNELS):
        raise ValueError(f"pixels are uint8 of shape [H, W], [H, W, 3] or [H, W, 4], not {kind} of shape {shape}")
    if len(shape) == 3 and shape[2] == 1:
        pixels = pixels[:, :, 0]  # type: ignore[index]  # three axes, as was just checked
    return Image.fromarray(pixels)
