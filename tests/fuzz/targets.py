"""What is fed with made-up bytes, and seeds to begin from. A target returns, or raises what the service must never let
happen: everything but its own errors."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from contextlib import suppress

import torch

from adapters.base import ClassState
from adapters.checkpoint import _HEADER, _MAGIC, STATE_SCHEMA, state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from adapters.errors import StateError
from adapters.vision.pixels import FastResize
from service.errors import ServiceError, StoreError
from service.images.decode import Decoder, ImageLimits
from service.images.inputs import from_base64
from service.labels.records import decode_record
from service.security.images import frames_of
from tests.conftest import make_tiny_backbone
from tests.security.hostile import encoded, many_scans, odd, picture

LIMITS = ImageLimits(1 << 20, 1_000_000, 50.0)
Target = Callable[[bytes], None]


class Decoding:
    """Both ways, on a loop of their own."""

    def __init__(self, backbone: Backbone) -> None:
        fast = FastResize.like(backbone.preprocess)
        self._loop = asyncio.new_event_loop()
        self._ways = [
            Decoder(backbone.preprocess, LIMITS, threads=1, max_decoded_bytes=32 << 20, fast=one)
            for one in (None, fast)
        ]

    def __call__(self, data: bytes) -> None:
        for way in self._ways:
            with suppress(ServiceError):
                pixels = self._loop.run_until_complete(way.pixels(data))
                assert (pixels.dtype, pixels.shape[0]) == (torch.uint8, 3)

    def close(self) -> None:
        for way in self._ways:
            way.close()
        self._loop.close()


def decoding() -> Decoding:
    return Decoding(make_tiny_backbone())


def state(data: bytes) -> None:
    with suppress(StateError):
        found = state_from_bytes(data)
        assert torch.isfinite(found.weights).all()


def signed_state(data: bytes) -> None:
    """The body under a header that is right, so that what stands behind the checksum is reached."""
    state(_HEADER.pack(_MAGIC, STATE_SCHEMA, zlib.crc32(data), len(data)) + data)


def record(data: bytes) -> None:
    with suppress(StoreError):
        decode_record(data)


def frames(data: bytes) -> None:
    for kind in ("GIF", "WEBP", "PNG", "JPEG"):
        assert frames_of(kind, data, stop=50) >= 1 or kind == "PNG"


def base64_text(data: bytes) -> None:
    from_base64(data.decode("latin-1"))


def image_seeds() -> list[bytes]:
    plain = [encoded(picture(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")]
    return [*plain, many_scans(2), *(data for _, data in odd())]


def state_seeds() -> list[bytes]:
    rows = torch.nn.functional.normalize(torch.arange(1.0, 25.0).reshape(3, 8), dim=1)
    return [state_to_bytes(ClassState("self-tpt", "v", rows, rows[0].clone(), 10.0, info={"steps": 3}))]


def signed_state_seeds() -> list[bytes]:
    return [seed[_HEADER.size :] for seed in state_seeds()]


def record_seeds() -> list[bytes]:
    return [
        json.dumps(
            {"schema": 1, "id": "0" * 64, "name": "n", "classes": [["a", [], []], ["b", ["c"], ["d"]]], "templates": [],
             "adapter": "coop", "options": {"steps": 1}, "created": 1.0, "auto": False, "fit": None}
        ).encode()
    ]  # fmt: skip
