"""Views of a training image: as it is served, cropped, at low resolution, and as a pencil drawing."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

View = Callable[[Image.Image, int, np.random.Generator], Image.Image]


def plain(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """open_clip's inference transform: shortest side to `size`, bicubic, centre crop."""
    width, height = image.size
    short = min(width, height)
    resized = image.resize((size * width // short, size * height // short), Image.Resampling.BICUBIC)
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def crop(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """A random crop of 35-100 % of the area, mildly off square, mirrored half of the time."""
    width, height = image.size
    side = (width * height * generator.uniform(0.35, 1.0)) ** 0.5
    stretch = generator.uniform(0.8, 1.25) ** 0.5
    crop_width, crop_height = min(width, round(side * stretch)), min(height, round(side / stretch))
    left = int(generator.integers(0, width - crop_width + 1))
    top = int(generator.integers(0, height - crop_height + 1))
    box = (left, top, left + crop_width, top + crop_height)
    view = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(view) if generator.random() < 0.5 else view


def low(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """The plain view as if the file had held only 24 to 96 pixels a side."""
    pixels = int(generator.integers(24, 97))
    small = plain(image, size, generator).resize((pixels, pixels), Image.Resampling.BICUBIC)
    return small.resize((size, size), Image.Resampling.BICUBIC)


def sketch(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """A pencil drawing: grey image over its own blur, so that flat areas turn white and edges stay dark."""
    grey = plain(image, size, generator).convert("L")
    blurred = grey.filter(ImageFilter.GaussianBlur(generator.uniform(1.5, 5)))
    flat = ImageChops.subtract(blurred, grey, scale=1.0, offset=0)
    strokes = ImageOps.autocontrast(ImageOps.invert(flat), cutoff=1)
    return strokes.convert("RGB")


VIEWS: dict[str, View] = {"plain": plain, "crop": crop, "low": low, "sketch": sketch}
