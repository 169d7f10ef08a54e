"""Views of an image: the standard one, then seeded random crops of the original."""

from __future__ import annotations

import random

import pytest
import torch
from PIL import Image

from adapters.clip import Backbone
from adapters.vision.crops import AREA, ASPECT, random_box


def gradient_image(width: int, height: int) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (ramp, ramp.rotate(90).resize((width, height)), ramp))


def test_the_first_view_is_the_standard_one_and_the_rest_are_crops(tiny_backbone: Backbone) -> None:
    image = gradient_image(90, 60)
    views = tiny_backbone.preprocess.views(image, 8, seed=3)
    assert (views.dtype, tuple(views.shape)) == (torch.uint8, (8, 3, 32, 32))
    assert torch.equal(views[0], tiny_backbone.preprocess.pixels(image))
    assert len({view.numpy().tobytes() for view in views}) == 8


def test_views_follow_from_the_seed_and_from_nothing_else(tiny_backbone: Backbone) -> None:
    image = gradient_image(50, 80)
    first = tiny_backbone.preprocess.views(image, 4, seed=3)
    torch.manual_seed(1)
    random.seed(1)
    assert torch.equal(first, tiny_backbone.preprocess.views(image, 4, seed=3))
    assert not torch.equal(first, tiny_backbone.preprocess.views(image, 4, seed=4))
    assert torch.equal(first[:2], tiny_backbone.preprocess.views(image, 2, seed=3))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_any_mode_have_views_of_three_channels(tiny_backbone: Backbone, mode: str) -> None:
    views = tiny_backbone.preprocess.views(gradient_image(40, 40).convert(mode), 3, seed=0)
    assert tuple(views.shape) == (3, 3, 32, 32)


def test_boxes_lie_in_the_image_and_keep_area_and_aspect() -> None:
    draw = random.Random(0)
    for _ in range(300):
        left, top, right, bottom = random_box(400, 300, draw)
        assert 0 <= left < right <= 400
        assert 0 <= top < bottom <= 300
        assert AREA[0] * 0.98 <= (right - left) * (bottom - top) / (400 * 300) <= AREA[1]
        assert ASPECT[0] * 0.97 <= (right - left) / (bottom - top) <= ASPECT[1] * 1.03


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (500, 1), (2000, 20)])
def test_a_box_is_found_in_the_narrowest_image(width: int, height: int) -> None:
    left, top, right, bottom = random_box(width, height, random.Random(0))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
