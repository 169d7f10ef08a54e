"""A real service process and a real Chromium for the page tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.needs import missing

START_SECONDS = 60.0
STOP_SECONDS = 20.0
READY = re.compile(r"ready on (http://[\d.:]+)")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")

OpenPage = Callable[..., Page]


def find_browser() -> str:
    """Skips where there is no Chromium; in CI (`CI=true`) that is a failure."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise missing("no Chromium found: apt-get install chromium")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a fresh service with the bundled backbone listens."""
    folder = tmp_path_factory.mktemp("service")
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})
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
    # Module scope: while it lives this thread has a running event loop, which asynchronous tests cannot share.
    path = find_browser()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[OpenPage]:
    """Opens the page in a context of its own; script errors and refused content fail the test."""
    contexts = []
    errors: list[str] = []

    def opened(width: int = 1200, height: int = 800, scheme: Literal["light", "dark"] = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Refused" in message.text else None)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
