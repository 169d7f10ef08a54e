"""Decoding: the same pixels as open_clip's preprocessing, limits before work, and a named reason for bad bytes."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import torch
from PIL import Image

from adapters.clip import Backbone
from adapters.vision.pixels import FastResize
from service.errors import ImageError, LimitExceeded, ServiceError, UnsupportedType
from service.images.decode import ByteBudget, Decoder, ImageLimits

LIMITS = ImageLimits(max_image_bytes=200_000, max_pixels=1_000_000, max_side_ratio=20)


def decoder_of(backbone: Backbone, mode: str, *, apply_exif: bool = True) -> Decoder:
    fast = FastResize.like(backbone.preprocess) if mode == "fast" else None
    return Decoder(
        backbone.preprocess, LIMITS, threads=2, max_decoded_bytes=8_000_000, apply_exif=apply_exif, fast=fast
    )


@pytest.fixture(params=["exact", "fast"])
async def decoder(request: pytest.FixtureRequest, tiny_backbone: Backbone) -> AsyncIterator[Decoder]:
    made = decoder_of(tiny_backbone, request.param)
    yield made
    made.close()


@pytest.fixture
async def exact(tiny_backbone: Backbone) -> AsyncIterator[Decoder]:
    made = decoder_of(tiny_backbone, "exact")
    yield made
    made.close()


@pytest.fixture
async def fast(tiny_backbone: Backbone) -> AsyncIterator[Decoder]:
    made = decoder_of(tiny_backbone, "fast")
    yield made
    made.close()


def gradient(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    channels = [Image.linear_gradient("L").resize((width, height)).rotate(90 * i) for i in range(3)]
    return Image.merge("RGB", channels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def apart(one: torch.Tensor, other: torch.Tensor) -> int:
    """Levels by which the most different pixel differs."""
    return int((one.int() - other.int()).abs().max())


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises much and holds nothing."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_exact_pixels_are_those_of_the_backbones_preprocessing(
    kind: str, exact: Decoder, tiny_backbone: Backbone
) -> None:
    data = encoded(gradient(), kind)
    expected = tiny_backbone.preprocess.pixels(Image.open(io.BytesIO(data)))
    assert torch.equal(await exact.pixels(data), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
async def test_every_colour_mode_becomes_three_channels(mode: str, decoder: Decoder) -> None:
    image = Image.new("I;16", (60, 40), 30_000) if mode == "I;16" else gradient(mode=mode)
    pixels = await decoder.pixels(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert pixels.shape == (3, 32, 32)


async def test_sixteen_bits_are_scaled_and_not_clipped(decoder: Decoder) -> None:
    pixels = await decoder.pixels(encoded(Image.new("I;16", (40, 40), 30_000)))
    assert pixels.unique().tolist() == [30_000 // 256]


async def test_a_photo_taken_sideways_is_turned_upright(tiny_backbone: Backbone, decoder: Decoder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(), "JPEG", exif=exif)
    plain = decoder_of(tiny_backbone, decoder.mode, apply_exif=False)
    turned, as_stored = await decoder.pixels(data), await plain.pixels(data)
    plain.close()
    stored = Image.open(io.BytesIO(data))
    assert apart(as_stored, tiny_backbone.preprocess.pixels(stored)) <= (decoder.mode == "fast")
    assert apart(turned, tiny_backbone.preprocess.pixels(stored.transpose(Image.Transpose.ROTATE_270))) <= 1
    assert not torch.equal(turned, as_stored)


@pytest.mark.parametrize(
    ("width", "height", "limit"), [(2000, 600, "max_pixels"), (30_000, 30_000, None), (900, 10, "max_side_ratio")]
)
async def test_what_the_header_promises_is_refused_before_decoding(
    width: int, height: int, limit: str | None, decoder: Decoder
) -> None:
    with pytest.raises(ServiceError) as caught:
        await decoder.pixels(png_header(width, height) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert caught.value.extensions.get("limit") == limit


async def test_too_many_bytes_name_the_limit(decoder: Decoder) -> None:
    with pytest.raises(LimitExceeded, match="max_image_bytes is 200000, 200001 given"):
        await decoder.pixels(bytes(200_001))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_truncated_images_say_so(kind: str, decoder: Decoder) -> None:
    data = encoded(gradient(300, 200).effect_spread(40), kind)
    with pytest.raises(ImageError, match=r"damaged|truncated"):
        await decoder.pixels(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"<svg/>", b"BM" + bytes(60), b"%PDF-1.7", encoded(gradient(), "TIFF")])
async def test_other_formats_are_unsupported(data: bytes, decoder: Decoder) -> None:
    with pytest.raises(UnsupportedType):
        await decoder.pixels(data)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\x00", b"\x89PNG\r\n\x1a\nrest", b"GIF89a"])
async def test_damaged_headers_are_named(data: bytes, decoder: Decoder) -> None:
    with pytest.raises(ImageError):
        await decoder.pixels(data)


async def test_bytes_flipped_at_random_never_crash_the_decoder(decoder: Decoder) -> None:
    generator = torch.Generator().manual_seed(3)
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        data = bytearray(encoded(gradient(), kind))
        for _ in range(40):
            broken = bytearray(data)
            for place in torch.randint(0, len(data), (4,), generator=generator).tolist():
                broken[place] ^= 0x5A
            with suppress(ImageError, UnsupportedType, LimitExceeded):
                assert (await decoder.pixels(bytes(broken))).shape == (3, 32, 32)


def test_decoded_bytes_are_bounded_and_what_could_never_be_let_in_is_refused() -> None:
    budget, second_in = ByteBudget(10), threading.Event()

    def second() -> None:
        with budget.hold(5):
            second_in.set()

    with pytest.raises(LimitExceeded, match="max_decoded_bytes is 10, 25 given"), budget.hold(25):
        pass
    with budget.hold(6):
        thread = threading.Thread(target=second)
        thread.start()
        assert not second_in.wait(0.05)
    assert second_in.wait(5)
    thread.join()
