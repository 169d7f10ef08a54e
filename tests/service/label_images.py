"""Labelled pictures that a test draws, and the requests that carry them."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from PIL import Image

from tests.service.served import Served

COLOURS = {"cat": (200, 40, 40), "dog": (40, 60, 200), "horse": (40, 180, 60)}


def drawn(label: str, seed: int, size: int = 40) -> bytes:
    """A noisy square in the colour of its class."""
    noise = np.random.default_rng(seed).integers(-40, 40, (size, size, 3))
    pixels = np.clip(np.array(COLOURS.get(label, (128, 128, 128))) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def created(site: Served, *classes: str, **body: Any) -> str:
    answer = await site.http.post("/v1/label-sets", json={"classes": list(classes), **body})
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


async def put(site: Served, label_set: str, label: str, *images: bytes, captions: str | None = None) -> httpx.Response:
    files = [("images", (f"{place}.png", image, "image/png")) for place, image in enumerate(images)]
    data = {} if captions is None else {"captions": captions}
    return await site.http.put(f"/v1/label-sets/{label_set}/support/{quote(label, safe='')}", files=files, data=data)


async def supported(site: Served, *classes: str, images: int = 2, **body: Any) -> str:
    """A label set with drawn support images of each class."""
    label_set = await created(site, *classes, **body)
    for label in classes:
        answer = await put(site, label_set, label, *(drawn(label, seed) for seed in range(images)))
        assert answer.status_code == 200, answer.text
    return label_set
