"""A real service process, warmed up with a little traffic, and a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.process import ServiceProcess, running_service
from tests.console.conftest import QUIET, find_browser
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
    path = find_browser()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, service: ServiceProcess) -> Iterator[OpenPage]:
    """Opens the page in a context of its own; script errors and refused content fail the test."""
    contexts = []
    errors: list[str] = []

    def opened(width: int = 1280, height: int = 900, scheme: Literal["light", "dark"] = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Refused" in message.text else None)
        page.goto(f"{service.url}/dashboard")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
