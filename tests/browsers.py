"""A real Chromium for the page tests: found, started, and watched for script errors and refused content."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from playwright.sync_api import Browser, Page, sync_playwright

from tests.needs import missing

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first is the same engine without a window system: a third of the CPU time per page."""

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")

Scheme = Literal["light", "dark"]


class Opener(Protocol):
    def __call__(self, url: str, *, width: int, height: int, scheme: Scheme, still: bool = False) -> Page:
        """A page on its own, with nothing stored. `still` asks it for reduced motion."""
        ...


def find_browser() -> str:
    """Skips where there is no Chromium; in CI (`CI=true`) that is a failure."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise missing("no Chromium found: apt-get install chromium-headless-shell (or chromium)")


@contextmanager
def chromium() -> Iterator[Browser]:
    """For a module at most: while it lives this thread has a running event loop, which asynchronous tests cannot
    share."""
    path = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def watched_pages(browser: Browser) -> Iterator[Opener]:
    """Script errors and refused content of the pages opened fail at the end. Pages share the browser's one context, and
    with it a process and compiled scripts: a context for each page takes twice the time."""
    context = browser.contexts[0] if browser.contexts else browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    errors: list[str] = []

    def opened(url: str, *, width: int, height: int, scheme: Scheme, still: bool = False) -> Page:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce" if still else "no-preference")
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Refused" in message.text else None)
        page.goto(url)
        return page

    yield opened
    for page in context.pages:
        page.evaluate("localStorage.clear()")
        page.close()
    assert errors == []


def follows_scheme_until_switched(page: Page, scheme: Scheme) -> None:
    """Asserts that the page has the browser's colour scheme, and its switch the last word."""

    def is_dark() -> bool:
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in background.strip("rgb()").split(",")) < 3 * 128

    assert is_dark() == (scheme == "dark")
    page.locator("#theme").click()
    assert not is_dark()
    page.locator("#theme").click()
    assert is_dark()
