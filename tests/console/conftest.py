"""A real service process, a real Chromium and labelled images for the page tests."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance
from playwright.sync_api import Browser, Page

from tests.browsers import Scheme, chromium, watched_pages

START_SECONDS = 90.0
STOP_SECONDS = 60.0
READY = re.compile(r"ready on (http://[\d.:]+)")
PHOTOS = Path(__file__).resolve().parents[2] / "examples/images"
CLASSES = {"astronaut": "astronaut", "cat": "cat", "coffee": "cup of coffee", "rocket": "rocket"}
"""File of each photo to the class that it shows."""

OpenPage = Callable[..., Page]


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a fresh service with the bundled backbone listens."""
    folder = tmp_path_factory.mktemp("service")
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    log = folder / "log.txt"
    # One thread each: the machine is shared, and threads that wait for one another would take most of the time.
    one = {"OMP_NUM_THREADS": "1", "SELFTPT_THREADS": "1", "SELFTPT_ENGINE": "torch"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **one})
    try:
        yield listening_address(process, log)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def listening_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8")
        if match := READY.search(text):
            return match[1]
        assert process.poll() is None, text
        time.sleep(0.05)
    raise AssertionError(f"not ready after {START_SECONDS} s:\n{log.read_text(encoding='utf-8')}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[OpenPage]:
    """Opens a page of the console."""
    with watched_pages(browser) as opened:

        def at(path: str = "", width: int = 1200, height: int = 900, scheme: Scheme = "light") -> Page:
            return opened(f"{address}/{path}", width=width, height=height, scheme=scheme, still=True)

        yield at


@dataclass(frozen=True)
class Labelled:
    """Views of the example photos: a zip to measure on, and folders of others to learn from."""

    archive: Path
    folders: Path


@pytest.fixture(scope="package")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    home = tmp_path_factory.mktemp("labelled")
    dice = random.Random(1)
    with zipfile.ZipFile(home / "test.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for stem, label in CLASSES.items():
            with Image.open(PHOTOS / f"{stem}.jpg") as photo:
                views = [view(photo.convert("RGB"), dice) for _ in range(6)]
            folder = home / "support" / label.replace(" ", "_")
            folder.mkdir(parents=True)
            for place, data in enumerate(views[:2]):
                (folder / f"{stem}-{place}.jpg").write_bytes(data)
            for place, data in enumerate(views[2:]):
                archive.writestr(f"test/{label.replace(' ', '_')}/{stem}-{place}.jpg", data)
        archive.writestr("test/cat/broken.jpg", b"\xff\xd8\xff\xe0 nothing")
        archive.writestr("__MACOSX/test/cat/._cat-0.jpg", b"left by an archiver")
    return Labelled(home / "test.zip", home / "support")


def view(photo: Image.Image, dice: random.Random) -> bytes:
    """A piece of the photo, turned and of another brightness, so that some are hard."""
    part = dice.uniform(0.35, 0.9)
    width, height = int(photo.width * part), int(photo.height * part)
    left, top = dice.randint(0, photo.width - width), dice.randint(0, photo.height - height)
    piece = photo.crop((left, top, left + width, top + height)).rotate(dice.uniform(-15, 15)).resize((160, 160))
    buffer = io.BytesIO()
    ImageEnhance.Brightness(piece).enhance(dice.uniform(0.5, 1.5)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
