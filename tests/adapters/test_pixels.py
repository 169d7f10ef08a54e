"""Fast pixels beside open_clip's own: the same size, crop and turn, and never more than one level apart."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps
from torchvision.transforms import Compose, Resize

from adapters.clip import Backbone
from adapters.vision.pixels import FastResize, Preprocess, turned


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Hard for a resize: every pixel differs from its neighbours."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def exact(size: int = 32, **options: str) -> Preprocess:
    transform = image_transform_v2(PreprocessCfg(size=size, **options), is_train=False)  # type: ignore[arg-type]  # its fields are texts
    return Preprocess(size, (0.5,) * 3, (0.5,) * 3, Compose(transform.transforms[:-2]))


def fast(preprocess: Preprocess) -> Callable[[Image.Image], torch.Tensor]:
    resize = FastResize.like(preprocess)
    assert resize is not None
    return lambda image: resize(torch.from_numpy(np.array(image)))


def apart(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


# Short sides that do not divide, odd crops, upscaling, no resize at all, and ratios up to the limit of 100.
SIZES = [
    (60, 40),
    (40, 61),
    (33, 33),
    (32, 32),
    (32, 47),
    (31, 500),
    (500, 33),
    (9, 7),
    (10, 500),
    (257, 143),
    (100, 200),
    (100, 201),
    (66, 133),
]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_fast_pixels_are_one_level_off_at_most(width: int, height: int) -> None:
    ours, image = exact(), noise(width, height)
    assert apart(fast(ours)(image), ours.pixels(image)) <= 1


def test_and_two_where_a_strip_is_enlarged_many_times() -> None:
    ours, image = exact(), noise(1000, 10)
    assert apart(fast(ours)(image), ours.pixels(image)) <= 2


@pytest.mark.parametrize("options", [{"interpolation": "bilinear"}, {"resize_mode": "squash"}])
def test_other_kernels_and_squashed_images_too(options: dict[str, str]) -> None:
    ours, image = exact(**options), noise(90, 50)
    assert apart(fast(ours)(image), ours.pixels(image)) <= 1


def test_the_longer_side_is_cut_down_as_torchvision_does_and_not_rounded() -> None:
    resize = FastResize(224, "bicubic", squash=False)
    for width in range(100, 140):
        image = Image.new("RGB", (width, 100))
        assert resize.target(100, width) == Resize(224)(image).size[::-1]


def test_a_geometry_that_is_not_known_is_left_to_open_clip() -> None:
    assert FastResize.like(exact(resize_mode="longest")) is None


def test_the_tiny_backbones_geometry_is_known(tiny_backbone: Backbone) -> None:
    assert FastResize.like(tiny_backbone.preprocess) == FastResize(32, "bicubic", squash=False)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(orientation: int) -> None:
    image, exif, buffer = noise(5, 3), Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(buffer))
    assert np.array_equal(turned(np.array(image), orientation), np.array(upright))


@pytest.mark.parametrize("size", [(91, 50), (121, 50), (50, 121)])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_turning_after_the_resize_is_turning_before_it(orientation: int, size: tuple[int, int]) -> None:
    ours, image = exact(), noise(*size)
    resize = FastResize.like(ours)
    assert resize is not None
    upright = Image.fromarray(np.ascontiguousarray(turned(np.array(image), orientation)))
    assert apart(resize(torch.from_numpy(np.array(image)), orientation), ours.pixels(upright)) <= 1
