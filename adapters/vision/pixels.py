"""Decoded images to the uint8 pixels that the image tower takes: open_clip's own transform bit for bit, and a faster
one that is next to it. Decodes no files.

Tensor suffixes: H, W height and width as stored, S side of the tower's input.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as TF  # torchvision's own convention

from adapters.vision.crops import random_crop

FAST_VERSION = "2"
"""Goes into the keys of what was made from fast pixels; to be raised whenever they change."""

STEPS = {("Resize", "CenterCrop"): False, ("Resize",): True}
"""What open_clip's geometry may consist of, and whether it squashes the image into the square."""

LYING = (5, 6, 7, 8)
"""EXIF's orientations of images whose sides are swapped."""

TALL = 2
"""Height over width beyond which Pillow (13) resizes the height first."""

MODES = {"bicubic": "bicubic", "bilinear": "bilinear"}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """open_clip's own evaluation transform up to the pixels: resize, crop, RGB. Normalisation follows on the device."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Callable[[Image.Image], Image.Image]

    def pixels(self, image: Image.Image) -> Tensor:
        """A decoded image to uint8 [3, S, S]."""
        pixels: Tensor = TF.pil_to_tensor(self.resize(image))
        return pixels

    def views(self, image: Image.Image, count: int, *, seed: int) -> Tensor:
        """A decoded image to uint8 [count, 3, S, S]: what `pixels` gives, then random crops of the whole image. The
        same seed gives the same views."""
        draw, whole = random.Random(seed), image.convert("RGB")
        crops = [random_crop(whole, self.size, draw) for _ in range(count - 1)]
        return torch.stack([self.pixels(image), *crops])


@dataclass(frozen=True, slots=True)
class FastResize:
    """The resize and crop of a `Preprocess` on uint8 tensors, which torch does in vector code and without holding the
    interpreter. Its weights are rounded to fewer bits: pixels are off by one level at most, single ones by a few."""

    size: int
    mode: str
    squash: bool

    @classmethod
    def like(cls, preprocess: Preprocess) -> FastResize | None:
        """None for a geometry that this does not do (`longest`, targets that are not square, other kernels)."""
        steps: Sequence[object] = getattr(preprocess.resize, "transforms", ())
        geometry = [step for step in steps if type(step).__name__ in ("Resize", "CenterCrop")]
        others = [step for step in steps if step not in geometry and type(step).__name__ != "MaybeConvertMode"]
        names = tuple(type(step).__name__ for step in geometry)
        if others or names not in STEPS or not _fills(geometry[0], preprocess.size, squash=STEPS[names]):
            return None
        mode = MODES.get(str(getattr(getattr(geometry[0], "interpolation", None), "value", "")))
        return None if mode is None else cls(preprocess.size, mode, STEPS[names])

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to resize to. The longer side is cut down, not rounded, as torchvision does."""
        if self.squash:
            return self.size, self.size
        longer = int(self.size * max(height, width) / min(height, width))
        return (self.size, longer) if height <= width else (longer, self.size)

    def __call__(self, rgb_HW3: Tensor, orientation: int = 1) -> Tensor:
        """uint8 [H, W, 3] to uint8 [3, S, S], turned as EXIF's `orientation` says. The turn comes last, since there is
        less to turn then; but the sides are resized in the order in which Pillow does it with the upright image, for
        the result of the first pass is rounded and clipped before the second."""
        stored_height, stored_width = rgb_HW3.shape[:2]
        height, width = self.target(stored_height, stored_width)
        lying = orientation in LYING
        small_1CHW = rgb_HW3.permute(2, 0, 1)[None]
        if lying:
            height_first = not _height_first(stored_width, stored_height, width)
        else:
            height_first = _height_first(stored_height, stored_width, height)
        if height_first:
            small_1CHW = self._resized(small_1CHW, height, small_1CHW.shape[3])
        small_HW3 = self._resized(small_1CHW, height, width)[0].permute(1, 2, 0)
        upright_HW3 = turned(small_HW3.numpy(), orientation)
        top, left = (round((side - self.size) / 2) for side in upright_HW3.shape[:2])
        cropped_SS3 = upright_HW3[top : top + self.size, left : left + self.size]
        return torch.from_numpy(np.ascontiguousarray(cropped_SS3.transpose(2, 0, 1)))

    def _resized(self, image_1CHW: Tensor, height: int, width: int) -> Tensor:
        if image_1CHW.shape[2:] == (height, width):
            return image_1CHW
        return F.interpolate(image_1CHW, (height, width), mode=self.mode, antialias=True)


Array = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def turned(image_HW3: Array, orientation: int) -> Array:
    """The image as it should be seen, for one of EXIF's orientations 1 to 8; others change nothing. Copies nothing."""
    if orientation in LYING:
        image_HW3 = image_HW3.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image_HW3 = image_HW3[::-1]
    if orientation in (2, 3, 6, 7):
        image_HW3 = image_HW3[:, ::-1]
    return image_HW3


def _height_first(height: int, width: int, target_height: int) -> bool:
    """Pillow resizes the width first, but for tall images that shrink."""
    return height > TALL * width and height > target_height


def _fills(resize: object, size: int, *, squash: bool) -> bool:
    """Whether a torchvision `Resize` makes the shorter side, or both, `size` long."""
    wanted = getattr(resize, "size", None)
    sides = [wanted] if isinstance(wanted, int) else list(wanted or ())
    return sides == [size] * (2 if squash else 1) and getattr(resize, "max_size", None) is None
