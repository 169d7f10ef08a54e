"""Views of training images: their shape, their randomness, and that the plain one is what is served."""

from __future__ import annotations

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from adapters.training.views import VIEWS, plain

SIZE = 32


def picture(width: int = 91, height: int = 57) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def seen(name: str, seed: int, image: Image.Image) -> bytes:
    return VIEWS[name](image, SIZE, np.random.default_rng(seed)).tobytes()


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", [(91, 57), (57, 91), (20, 20), (5, 300)])
def test_a_view_is_a_square_colour_image(name: str, shape: tuple[int, int]) -> None:
    view = VIEWS[name](picture(*shape), SIZE, np.random.default_rng(0))
    assert (view.size, view.mode) == ((SIZE, SIZE), "RGB")


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_follows_its_generator(name: str) -> None:
    image = picture()
    assert seen(name, 1, image) == seen(name, 1, image)
    assert (seen(name, 1, image) == seen(name, 2, image)) == (name == "plain")


@pytest.mark.parametrize("shape", [(91, 57), (92, 57), (57, 92), (640, 427), (32, 32), (20, 23)])
def test_the_plain_view_is_open_clips_inference_transform(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    served = image_transform_v2(PreprocessCfg(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1)), is_train=False)(image)
    ours = np.asarray(plain(image, SIZE, np.random.default_rng(0)))
    assert np.array_equal((served.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0), ours)


def test_a_sketch_turns_flat_areas_white_and_edges_dark() -> None:
    image = Image.new("RGB", (64, 64), (90, 140, 60))
    image.paste((20, 20, 20), (30, 0, 34, 64))
    grey = np.asarray(VIEWS["sketch"](image, 64, np.random.default_rng(0)).convert("L"))
    assert grey[:, :8].min() > 240
    assert grey[:, 30:34].max() < 128
