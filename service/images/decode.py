"""Image bytes to pixels, in a few threads. What the header promises is checked before anything is decoded.

EXIF orientation is applied by default, so that photos stand as people see them; open_clip ignores it, and the setting
`exif=ignore` does too. 16-bit images are scaled to 8 bits; Pillow's plain conversion would clip them to white. All else
is the backbone's own preprocessing: bit for bit, or for RGB and grey images the fast one when that is given.
"""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from adapters.vision.pixels import FAST_VERSION, FastResize, Preprocess
from service.errors import ImageError, LimitExceeded, UnsupportedType
from service.images.formats import FORMATS, sniffed_type
from service.images.jpeg import decode_rgb
from service.security.images import check_header, held_bytes

ORIENTATION = 0x0112
"""EXIF's tag."""

DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, TypeError, AttributeError,
          RuntimeError, struct.error, zlib.error)  # fmt: skip
"""What Pillow's decoders raise on bytes that are not what they seem."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    max_image_bytes: int
    max_pixels: int
    max_side_ratio: float
    max_frames: int = 1000


class Decoder:
    """At most `threads` images are decoded at once, and only while their pixels fit into `max_decoded_bytes`."""

    def __init__(
        self,
        preprocess: Preprocess,
        limits: ImageLimits,
        *,
        threads: int,
        max_decoded_bytes: int,
        apply_exif: bool = True,
        fast: FastResize | None = None,
    ) -> None:
        self._preprocess = preprocess
        self._limits = limits
        self._budget = ByteBudget(max_decoded_bytes)
        self._apply_exif = apply_exif
        self._fast = fast
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    @property
    def mode(self) -> Literal["fast", "exact"]:
        return "exact" if self._fast is None else "fast"

    @property
    def version(self) -> str:
        """Changes with everything but the backbone that decides which pixels an image gives."""
        fast = "exact" if self._fast is None else f"fast-{FAST_VERSION}"
        return f"{fast}:{'apply' if self._apply_exif else 'ignore'}"

    async def pixels(self, data: bytes, views: int = 1) -> Tensor:
        """uint8 [3, S, S], or [views, 3, S, S] for more views than one, the same ones for the same bytes. Raises
        `ImageError`, `LimitExceeded` or `UnsupportedType`."""
        if len(data) > self._limits.max_image_bytes:
            raise LimitExceeded("max_image_bytes", self._limits.max_image_bytes, actual=len(data))
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.decode, data, views)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def decode(self, data: bytes, views: int = 1) -> Tensor:
        """As `pixels`, on the calling thread and whatever the number of bytes."""
        with open_header(data) as image:
            width, height = image.size
            self._check_size(width, height)
            check_header(image, data, max_frames=self._limits.max_frames)
            held = held_bytes(image) + (views - 1) * 3 * self._preprocess.size**2
            with self._budget.hold(held), damage_named(image.format or "image"):
                if self._fast is not None and views == 1:
                    return self._fast_pixels(self._fast, data, image)
                upright = self._loaded(image)
                if views == 1:
                    return self._preprocess.pixels(upright)
                return self._preprocess.views(upright, views, seed=zlib.crc32(data))

    def _fast_pixels(self, resize: FastResize, data: bytes, image: Image.Image) -> Tensor:
        """Images with a palette, alpha or four inks keep open_clip's own order of steps."""
        rgb_HW3 = decode_rgb(data, image, side=resize.size)
        if rgb_HW3 is not None:
            return resize(rgb_HW3, self._orientation(image))
        upright = self._loaded(image)
        if upright.mode not in ("RGB", "L"):
            return self._preprocess.pixels(upright)
        return resize(torch.from_numpy(np.array(upright.convert("RGB"))))

    def _loaded(self, image: Image.Image) -> Image.Image:
        image.load()
        self._check_size(*image.size)
        return eight_bits(self._upright(image))

    def _orientation(self, image: Image.Image) -> int:
        if not self._apply_exif:
            return 1
        try:
            return int(image.getexif().get(ORIENTATION, 1))
        except DAMAGE:
            return 1  # as below

    def _check_size(self, width: int, height: int) -> None:
        if min(width, height) < 1:
            raise ImageError("the image has no pixels")
        if width * height > self._limits.max_pixels:
            raise LimitExceeded("max_pixels", self._limits.max_pixels, actual=width * height)
        ratio = max(width, height) / min(width, height)
        if ratio > self._limits.max_side_ratio:
            raise LimitExceeded("max_side_ratio", self._limits.max_side_ratio, actual=round(ratio, 1))

    def _upright(self, image: Image.Image) -> Image.Image:
        if not self._apply_exif:
            return image
        try:
            return ImageOps.exif_transpose(image)
        except DAMAGE:
            return image  # damaged metadata does not make a damaged image


def open_header(data: bytes) -> Image.Image:
    """Reads no pixels. GIF and animated images stand at their first frame."""
    if not data:
        raise ImageError("the image is empty")
    try:
        return Image.open(io.BytesIO(data), formats=list(FORMATS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"refused before decoding: {error}") from error
    except UnidentifiedImageError as error:
        if sniffed_type(data):
            raise ImageError("the image's header is damaged") from error
        raise UnsupportedType("not a JPEG, PNG, WebP or GIF image", accepted=list(FORMATS.values())) from error
    except DAMAGE as error:
        raise ImageError(f"the image's header is damaged: {error}") from error


@contextmanager
def damage_named(kind: str) -> Iterator[None]:
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"refused while decoding: {error}") from error
    except DAMAGE as error:
        raise ImageError(f"the {kind} data is damaged: {error}") from error


def eight_bits(image: Image.Image) -> Image.Image:
    """Integer and float modes scaled to 8 bits; every other mode unchanged."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "I":  # 16-bit PNGs in older Pillow
        return image.point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("L") if image.mode == "F" else image


class ByteBudget:
    """A semaphore weighted by bytes, for threads. What could never be let in is refused."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        if count > self._total:
            raise LimitExceeded("max_decoded_bytes", self._total, actual=count)
        with self._changed:
            self._changed.wait_for(lambda: self._held + count <= self._total)
            self._held += count
        try:
            yield
        finally:
            with self._changed:
                self._held -= count
                self._changed.notify_all()
