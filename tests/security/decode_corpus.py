"""Decodes the hostile corpus in both ways and prints by how many bytes the peak of this process's memory has grown."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress
from itertools import chain
from pathlib import Path

import torch

from adapters.vision.pixels import FastResize
from service.errors import ServiceError
from service.images.decode import Decoder, ImageLimits
from tests.conftest import make_tiny_backbone
from tests.security.hostile import bombs, encoded, floods, odd, picture, wrong

HELD = 32 << 20
LARGEST = 16 << 20


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def forget_peak() -> int:
    """Memory held now, from which the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status("VmRSS")


async def decode(decoder: Decoder, data: bytes) -> None:
    with suppress(ServiceError):
        await decoder.pixels(data)


async def main() -> None:
    torch.set_num_threads(1)
    preprocess = make_tiny_backbone().preprocess
    corpus = [data for _, data in chain(bombs(), wrong(), odd(), floods())]
    limits = ImageLimits(LARGEST, 2_000_000, 100.0)
    ways = [
        Decoder(preprocess, limits, threads=2, max_decoded_bytes=HELD, fast=fast)
        for fast in (None, FastResize.like(preprocess))
    ]
    for way in ways:
        await decode(way, encoded(picture(), "JPEG"))
    gc.collect()
    before = forget_peak()
    for way in ways:
        await asyncio.gather(*(decode(way, data) for data in corpus))
        way.close()
    sys.stdout.write(str(status("VmHWM") - before))


if __name__ == "__main__":
    asyncio.run(main())
