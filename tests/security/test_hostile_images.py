"""Hostile files, in both ways of decoding: a named refusal, no 5xx, no memory beyond the bound, nothing that hangs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path

import pytest

from adapters.clip import Backbone
from service.security.images import frames_of
from tests.security.hostile import bombs, encoded, floods, gif_of_frames, odd, picture, webp_of_frames, wrong
from tests.service.served import Served, served

ROOT = Path(__file__).resolve().parents[2]
LABELS = {"labels": "cat,dog", "adapter": "zero-shot"}
SMALL = {"max_pixels": 2_000_000, "max_decoded_bytes": 32 << 20, "max_image_bytes": 16 << 20}


pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")


@pytest.fixture(params=["fast", "exact"])
async def service(tiny_backbone: Backbone, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    async with served(tiny_backbone, preprocess=request.param, **SMALL) as one:
        yield one


async def test_hostile_files_are_refused_by_name(service: Served) -> None:
    for name, data in chain(bombs(), wrong()):
        answer = await service.http.post(
            "/v1/classify", params=LABELS, content=data, headers={"Content-Type": "image/png"}
        )
        # A few are cut or stuffed so little that there still is a picture in them.
        assert answer.status_code in {200, 413, 415, 422}, (name, answer.text[:200])
        if answer.status_code != 200:
            assert answer.json()["type"].startswith("/problems/"), name
            assert len(answer.content) < 2000, name


async def test_odd_but_right_images_and_floods_of_metadata_are_answered(service: Served) -> None:
    for name, data in chain(odd(), floods()):
        answer = await service.http.post(
            "/v1/classify", params=LABELS, content=data, headers={"Content-Type": "image/png"}
        )
        assert answer.status_code == 200 or (name.startswith("png of 20000") and answer.status_code == 422), name


async def test_bad_images_among_good_ones_fail_alone(service: Served) -> None:
    bad = [data for _, data in chain(wrong(), bombs()) if len(data) < 100_000][:30]
    files = [("images", ("x", data)) for one in bad for data in (one, encoded(picture(), "PNG"))]
    results = (await service.http.post("/v1/classify", params=LABELS, files=files)).json()["results"]
    assert all(one["predictions"] for one in results[1::2])


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("png of 30000 x 30000", None),
        ("jpeg of 3000 scans", None),
        ("gif of 5000 frames", "max_frames"),
        ("png animation of 2 ** 31 frames", "max_frames"),
    ],
)
async def test_bombs_are_refused_before_they_are_decoded(name: str, limit: str | None, service: Served) -> None:
    data = dict(bombs())[name]
    answer = await service.http.post("/v1/classify", params=LABELS, content=data, headers={"Content-Type": "image/png"})
    assert answer.status_code in {413, 422}
    assert answer.json().get("limit") == limit


def test_frames_are_counted_without_decoding() -> None:
    for kind, data, expected in (
        ("GIF", gif_of_frames(7), 7),
        ("GIF", gif_of_frames(5000), 101),
        ("WEBP", webp_of_frames(9), 9),
        ("PNG", encoded(picture(), "PNG"), 1),
        ("PNG", encoded(picture(), "PNG", save_all=True, append_images=[picture(mode="L").convert("RGB")]), 2),
        ("JPEG", encoded(picture(), "JPEG"), 1),
        ("GIF", b"GIF89a", 1),
    ):
        assert frames_of(kind, data, stop=101) == expected


def test_memory_stays_within_the_bound_over_the_whole_corpus() -> None:
    """In a process of its own: the peak may grow by the bytes that may be decoded at once, and some working room."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.security.decode_corpus"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    grown = int(run.stdout)
    assert grown < (32 << 20) + (64 << 20)
