"""Fast decoding against exact decoding, for every kind of image whose steps are easy to get wrong."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from adapters.clip import Backbone
from adapters.vision.pixels import FastResize
from service.errors import ServiceError
from service.images.decode import Decoder, ImageLimits
from service.images.jpeg import HALVING, decode_rgb

PHOTO = "examples/images/coffee.jpg"


@dataclass
class Pair:
    """Both decoders of one backbone."""

    exact: Decoder
    fast: Decoder

    async def apart(self, data: bytes) -> int:
        one, other = await self.exact.pixels(data), await self.fast.pixels(data)
        return int((one.int() - other.int()).abs().max())


@pytest.fixture
async def pair(tiny_backbone: Backbone) -> AsyncIterator[Pair]:
    limits = ImageLimits(max_image_bytes=2_000_000, max_pixels=2_000_000, max_side_ratio=100)
    preprocess = tiny_backbone.preprocess
    both = [
        Decoder(preprocess, limits, threads=1, max_decoded_bytes=8_000_000, fast=fast)
        for fast in (None, FastResize.like(preprocess))
    ]
    yield Pair(*both)
    for one in both:
        one.close()


def photo(width: int = 120, height: int = 81, mode: str = "RGB") -> Image.Image:
    return Image.open(PHOTO).resize((width, height), Image.Resampling.LANCZOS).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "1", "CMYK"])
async def test_palettes_alpha_and_inks_keep_the_steps_of_open_clip(mode: str, pair: Pair) -> None:
    image = photo(mode=mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    assert await pair.apart(encoded(image, kind)) == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_grey_and_colours_are_one_level_apart_at_most(mode: str, kind: str, pair: Pair) -> None:
    image = photo(mode="L" if mode == "I;16" and kind != "PNG" else mode)
    assert await pair.apart(encoded(image, kind)) <= 1


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_rows": 1}]
)
async def test_all_kinds_of_jpeg_are_one_level_apart_at_most(options: dict[str, object], pair: Pair) -> None:
    assert await pair.apart(encoded(photo(), **options)) <= 1


@pytest.mark.parametrize(("width", "height"), [(1990, 20), (20, 1990), (47, 32), (32, 32), (33, 600), (65, 64)])
async def test_extreme_ratios_and_short_sides_are_one_level_apart_at_most(width: int, height: int, pair: Pair) -> None:
    assert await pair.apart(encoded(photo(width, height))) <= 1


@pytest.mark.parametrize("orientation", range(10))
async def test_photos_that_lie_or_hang_are_turned_alike(orientation: int, pair: Pair) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert await pair.apart(encoded(photo(), exif=exif)) <= 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
async def test_damaged_exif_data_leaves_the_photo_as_it_is(pair: Pair) -> None:
    data = encoded(photo(), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert await pair.apart(data) <= 1


async def test_a_large_photo_is_decoded_at_half_size(tiny_backbone: Backbone) -> None:
    side = tiny_backbone.preprocess.size
    for shorter, expected in ((int(HALVING * side) - 1, 1), (int(HALVING * side) + 1, 2)):
        data = encoded(photo(2 * shorter, shorter))
        rgb = decode_rgb(data, Image.open(io.BytesIO(data)), side=side)
        assert rgb is not None
        assert rgb.shape[0] == -(-shorter // expected)


async def test_halving_keeps_the_embedding(pair: Pair, tiny_backbone: Backbone) -> None:
    data = encoded(photo(900, 700))
    features = tiny_backbone.image.encode(torch.stack([await pair.exact.pixels(data), await pair.fast.pixels(data)]))
    assert float(features[0] @ features[1]) > 0.999


@pytest.mark.parametrize("progressive", [False, True])
async def test_nothing_that_is_refused_becomes_accepted(progressive: bool, pair: Pair) -> None:
    data, draw = encoded(photo(), progressive=progressive), torch.Generator().manual_seed(5)
    cuts = [data[:length] for length in range(len(data) - 2, 2, -97)]
    flipped = []
    for _ in range(60):
        broken = bytearray(data)
        for place in torch.randint(0, len(data), (3,), generator=draw).tolist():
            broken[place] ^= 0x5A
        flipped.append(bytes(broken))
    for broken in [*cuts, *flipped]:
        exact, fast = await outcome(pair.exact, broken), await outcome(pair.fast, broken)
        assert exact == fast


async def outcome(decoder: Decoder, data: bytes) -> object:
    """The error, if it is one of those that the service answers with; others fail the test."""
    try:
        await decoder.pixels(data)
    except ServiceError as error:
        return type(error), error.detail
    return "accepted"
