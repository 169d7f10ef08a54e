"""A real service process, warmed up with a little traffic, and a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from benchmarks.process import ServiceProcess, running_service
from tests.browsers import Scheme, chromium, watched_pages
from tests.e2e.calls import LABELS, classify, upload

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service(threads="1", engine="torch") as running:
        upload(running, LABELS, name="things")
        for photo in ("cat", "coffee", "rocket"):
            classify(running, "things", photo)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser: Browser, service: ServiceProcess) -> Iterator[OpenPage]:
    """Opens the dashboard."""
    with watched_pages(browser) as opened:

        def at(width: int = 1280, height: int = 900, scheme: Scheme = "light") -> Page:
            return opened(f"{service.url}/dashboard", width=width, height=height, scheme=scheme)

        yield at
