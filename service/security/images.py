"""What an image will cost before it is decoded: frames, passes and bytes held, read from its headers alone."""

from __future__ import annotations

import struct

from PIL import Image

from service.errors import ImageError, LimitExceeded

MAX_SCANS = 100
"""Scans of a progressive JPEG. Encoders make about ten; each costs a pass over all pixels, and a small file can have
thousands."""

HELD_PER_PIXEL = {"JPEG": 9, "PNG": 12, "WEBP": 27, "GIF": 8}
"""Bytes per pixel that decoding and resizing hold at their peak, measured; Pillow keeps several canvases of a WebP."""

PROGRESSIVE = 13
"""A progressive JPEG's coefficients come on top, two bytes each."""

SCAN = b"\xff\xda"
EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, 0x3B


def check_header(image: Image.Image, data: bytes, *, max_frames: int) -> None:
    """Raises `LimitExceeded` for too many frames, `ImageError` for a JPEG made to be slow."""
    frames = frames_of(image.format or "", data, stop=max_frames + 1)
    if frames > max_frames:
        raise LimitExceeded("max_frames", max_frames, actual=frames)
    if image.format in ("JPEG", "MPO") and data.count(SCAN) > MAX_SCANS:
        raise ImageError(f"the JPEG has more than {MAX_SCANS} scans")


def held_bytes(image: Image.Image) -> int:
    """While `image` is decoded and resized."""
    width, height = image.size
    kind = image.format or ""
    each = PROGRESSIVE if image.info.get("progressive") else HELD_PER_PIXEL.get(kind, max(HELD_PER_PIXEL.values()))
    return width * height * each


def frames_of(kind: str, data: bytes, *, stop: int) -> int:
    """Frames that the file announces, counted up to `stop`; 1 for a still image. Damage ends the count: the decoder
    names it."""
    try:
        if kind == "GIF":
            return max(1, _gif_frames(data, stop))
        if kind == "WEBP":
            return max(1, _webp_frames(data, stop))
        return _png_frames(data) if kind == "PNG" else 1
    except (IndexError, struct.error):
        return 1


def _gif_frames(data: bytes, stop: int) -> int:
    place, frames = 13 + _colours(data[10]), 0
    while frames < stop and place < len(data) and data[place] != TRAILER:
        if data[place] == IMAGE:
            frames += 1
            place += 11 + _colours(data[place + 9])
        elif data[place] == EXTENSION:
            place += 2
        else:
            return frames
        while place < len(data) and data[place]:
            place += 1 + data[place]
        place += 1
    return frames


def _colours(flags: int) -> int:
    """Bytes of the colour table that follows."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp_frames(data: bytes, stop: int) -> int:
    place, frames = 12, 0
    while frames < stop and place + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, place + 4)
        frames += data[place : place + 4] == b"ANMF"
        place += 8 + size + size % 2
    return frames


def _png_frames(data: bytes) -> int:
    """As the animation's control chunk says, which comes before the pixels."""
    place = 8
    while place + 12 <= len(data) and data[place + 4 : place + 8] != b"IDAT":
        (size,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"acTL":
            (frames,) = struct.unpack_from(">I", data, place + 8)
            return max(1, int(frames))
        place += 12 + size
    return 1
