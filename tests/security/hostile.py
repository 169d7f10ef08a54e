"""Files made to hurt: small ones that promise or unpack to much, broken ones, and ones that are not what they say."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image, PngImagePlugin

WHITE = (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 96, height: int = 64, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


@cache
def zeros(count: int) -> bytes:
    """`count` zero bytes, packed a thousand to one without ever being held."""
    packer, part = zlib.compressobj(9), bytes(1 << 20)
    packed = [packer.compress(part) for _ in range(count // len(part))]
    return b"".join([*packed, packer.compress(bytes(count % len(part))), packer.flush()])


def jpeg_sized(width: int, height: int, data: bytes | None = None) -> bytes:
    """A JPEG whose frame header is rewritten."""
    whole = bytearray(data or encoded(picture(), "JPEG"))
    place = whole.find(b"\xff\xc0")
    struct.pack_into(">HH", whole, place + 5, height, width)
    return bytes(whole)


def gif_sized(width: int, height: int) -> bytes:
    whole = bytearray(encoded(picture(mode="P"), "GIF"))
    struct.pack_into("<HH", whole, 6, width, height)
    place = whole.find(b"\x2c", 13 + 768)
    struct.pack_into("<HH", whole, place + 5, width, height)
    return bytes(whole)


def webp_sized(width: int, height: int) -> bytes:
    """A lossless WebP whose canvas is rewritten to at most 16384 x 16384."""
    whole = bytearray(encoded(picture(), "WEBP", lossless=True))
    place = whole.find(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", whole, place)
    struct.pack_into("<I", whole, place, bits & 0xF0000000 | (height - 1) << 14 | (width - 1))
    return bytes(whole)


def many_scans(count: int) -> bytes:
    """A progressive JPEG with one of its scans repeated."""
    data = encoded(picture(), "JPEG", progressive=True)
    first = data.find(b"\xff\xda")
    second = data.find(b"\xff\xda", first + 2)
    return data[:second] + data[first:second] * count + data[second:]


def two_frames_headers() -> bytes:
    """Two frame headers that do not agree: readers may believe different ones."""
    data = encoded(picture(), "JPEG")
    place = data.find(b"\xff\xc0")
    (size,) = struct.unpack_from(">H", data, place + 2)
    other = bytearray(data[place : place + 2 + size])
    struct.pack_into(">HH", other, 5, 60_000, 60_000)
    return data[:place] + bytes(other) + data[place:]


def bombs() -> Iterator[tuple[str, bytes]]:
    yield "png of 30000 x 30000", png(30_000, 30_000, chunk(b"IDAT", zeros(1 << 24)))
    yield "png that unpacks to more than it says", png(64, 64, chunk(b"IDAT", zeros(1 << 26)))
    yield "png with the most that is allowed, 16 bits", png(2**31 - 1, 1, chunk(b"IDAT", b""), depth=16)
    yield "png text that unpacks to 64 MB", png(64, 64, chunk(b"zTXt", b"k\0\0" + zeros(1 << 26)), chunk(b"IDAT", b""))
    yield "png colour profile that unpacks", png(64, 64, chunk(b"iCCP", b"k\0\0" + zeros(1 << 26)))
    yield "jpeg of 65000 x 65000", jpeg_sized(65_000, 65_000)
    yield "jpeg of no height", jpeg_sized(64, 0)
    yield "jpeg of 3000 scans", many_scans(3000)
    yield "jpeg with two frame headers", two_frames_headers()
    yield "gif of 65000 x 65000", gif_sized(65_000, 65_000)
    yield "gif of 5000 frames", gif_of_frames(5000)
    yield "webp of 16384 x 16384", webp_sized(16_384, 16_384)
    yield "webp of 5000 frames", webp_of_frames(5000)
    yield (
        "png animation of 2 ** 31 frames",
        png(64, 64, chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), chunk(b"IDAT", zeros(64 * 193))),
    )


def gif_of_frames(count: int) -> bytes:
    data = encoded(picture(16, 16, "P"), "GIF")
    start = data.find(b"\x2c", 13 + 768)
    return data[:start] + data[start:-1] * count + b";"


def webp_of_frames(count: int) -> bytes:
    frame = b"ANMF" + struct.pack("<I", 16) + bytes(16)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02" + bytes(9) + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body) + len(frame) * count) + body + frame * count


def floods() -> Iterator[tuple[str, bytes]]:
    text = PngImagePlugin.PngInfo()
    for number in range(3000):
        text.add_text(f"key{number}", "x" * 100)
    yield "png with 3000 texts", encoded(picture(), "PNG", pnginfo=text)
    plain = encoded(picture(), "JPEG")
    segment = b"\xff\xed" + struct.pack(">H", 0xFFFF) + bytes(0xFFFD)
    yield "jpeg with 10 MB of application data", plain[:2] + segment * 160 + plain[2:]
    yield "jpeg with 20000 comments", plain[:2] + (b"\xff\xfe" + struct.pack(">H", 2)) * 20_000 + plain[2:]
    yield "jpeg with a broken exif", encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(400))
    yield "png of 20000 small chunks", png(64, 64, *[chunk(b"tEXt", b"k\0v")] * 20_000)


def wrong() -> Iterator[tuple[str, bytes]]:
    yield "nothing", b""
    yield "zeros", bytes(10_000)
    yield "text", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    yield "tiff bomb", encoded(Image.new("1", (9000, 9000)), "TIFF", compression="group4")
    yield (
        "bmp of 2 ** 31",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, *[0] * 6),
    )
    yield "ico", encoded(picture(32, 32), "ICO")
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"
    yield "gif that is a zip", encoded(picture(mode="P"), "GIF") + b"PK\x05\x06" + bytes(18)
    yield "gif that is a script", b"GIF89a=1;alert(1)//" + bytes(64)
    yield "jpeg that is a png", encoded(picture(), "JPEG")[:20] + encoded(picture(), "PNG")
    yield "riff that is a wave", b"RIFF" + struct.pack("<I", 100) + b"WAVEfmt " + bytes(92)
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        data = encoded(picture(), kind)
        for part in (1, 10, 40, len(data) // 2, len(data) - 3):
            yield f"{kind} cut at {part}", data[:part]


def odd() -> Iterator[tuple[str, bytes]]:
    """Rare, but right: to be answered."""
    yield "palette", encoded(picture(mode="P"), "PNG", transparency=0)
    yield "two colours", encoded(picture(mode="1"), "PNG")
    yield "grey and alpha", encoded(picture(mode="LA"), "PNG")
    yield "four inks", encoded(picture(mode="CMYK"), "JPEG")
    yield "16 bits", encoded(Image.fromarray(np.full((64, 96), 40_000, dtype=np.uint16)), "PNG")
    yield "16 bits, colour", png(64, 64, chunk(b"IDAT", zlib.compress(bytes(64 * (64 * 6 + 1)))), depth=16)
    yield "progressive", encoded(picture(), "JPEG", progressive=True)
    yield "one pixel", encoded(picture(1, 1), "PNG")
    yield "animation", encoded(picture(), "WEBP", save_all=True, append_images=[picture(mode="L").convert("RGB")])
    yield "photo with something behind it", encoded(picture(), "JPEG") + b"<script>" + bytes(1000)
