"""The console for everyone: axe-core finds nothing serious, the keyboard is enough, small windows and both schemes."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browsers import Scheme, follows_scheme_until_switched
from tests.console.conftest import CLASSES, PHOTOS, Labelled

pytestmark = pytest.mark.browser

PATIENCE_MS = 90_000
AXE = Axe()
SERIOUS = {"serious", "critical"}
LONG = "a very long label that has to be wrapped somewhere in the middle of the line"

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def things(address: str) -> str:
    body = {"classes": [*CLASSES.values(), LONG], "name": "things", "adapter": "zero-shot"}
    return str(httpx.post(f"{address}/v1/label-sets", json=body, headers={"Prefer": "wait=60"}).json()["id"])


def findings(page: Page, where: str) -> list[str]:
    """What axe-core finds serious or critical, and sideways scrolling of the page."""
    if not page.evaluate("'axe' in window"):  # going from tab to tab loads nothing anew
        page.evaluate(AXE.axe_script)
    found = page.evaluate("axe.run({resultTypes: ['violations'], preload: false})")["violations"]
    bad = [f"{where}: {one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in SERIOUS]
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return bad + ([f"{where}: {wide} pixels too wide"] if wide > 0 else [])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
def test_axe_finds_nothing_serious_on_any_page(
    open_page: OpenPage, things: str, labelled: Labelled, scheme: str, width: int
) -> None:
    page = open_page(f"#/try/{things}", scheme=scheme, width=width)
    page.set_input_files("#file", [PHOTOS / "cat.jpg", PHOTOS / "camera.jpg"])
    expect(page.locator(".bars").first).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_text("The same from your code").click()
    page.get_by_text("Method and scores").click()
    page.get_by_label("Reject below").fill("80")
    bad = findings(page, "try it")
    page.get_by_role("link", name="Label sets").click()
    expect(page.get_by_label("Find")).to_be_visible()
    bad += findings(page, "list")
    page.get_by_role("link", name="New label set").click()
    page.get_by_role("button", name="Create label set").click()
    expect(page.get_by_role("alert")).to_be_visible()
    bad += findings(page, "new, with a problem")
    for tab in ("overview", "support", "compare", "history", "evaluate"):
        page.goto(f"{page.url.partition('#')[0]}#/label-sets/{things}/{tab}")
        expect(page.locator("#page-label-sets .tabs a[aria-current]")).to_be_visible()
        if tab == "evaluate":
            with page.expect_file_chooser() as chooser:
                page.get_by_role("button", name="Choose a zip").click()
            chooser.value.set_files(labelled.archive)
            page.get_by_role("button", name="Evaluate").click()
            expect(page.locator(".tile").first).to_be_visible(timeout=PATIENCE_MS)
        bad += findings(page, tab)
    assert bad == []


def press_until(page: Page, selector: str, most: int = 40) -> None:
    """Tab by tab to a control, as somebody without a mouse gets there."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("selector => Boolean(document.activeElement?.matches(selector))", selector):
            return
    raise AssertionError(f"{selector} cannot be reached with Tab")


def test_the_keyboard_is_enough_to_classify(open_page: OpenPage) -> None:
    page = open_page()
    press_until(page, "#file")
    page.set_input_files("#file", PHOTOS / "cat.jpg")  # what a file dialog would give
    press_until(page, "#labels")
    page.keyboard.type("cat, dog")
    press_until(page, "summary")
    press_until(page, "#ask-options summary")
    page.keyboard.press("Enter")
    press_until(page, "#method")
    page.keyboard.type("zero")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".bars li")).to_have_count(2, timeout=PATIENCE_MS)
    press_until(page, "#reject")
    for _ in range(3):
        page.keyboard.press("PageUp")
    expect(page.locator("#reject-value")).to_have_text("30 %")


def test_the_keyboard_is_enough_to_make_and_delete_a_label_set(open_page: OpenPage, address: str) -> None:
    page = open_page()
    press_until(page, 'a[href="#/label-sets"]')
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Label sets")).to_be_focused()
    press_until(page, 'a[href="#/label-sets/new"]')
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New label set")).to_be_focused()
    press_until(page, "textarea")
    page.keyboard.type("cat\ndog")
    press_until(page, "input[maxlength]")
    page.keyboard.type("by-keyboard")
    press_until(page, "select")
    page.keyboard.type("zero")
    press_until(page, 'button[type="submit"]')
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="by-keyboard")).to_be_focused(timeout=PATIENCE_MS)
    press_until(page, "button.danger")
    page.keyboard.press("Enter")
    press_until(page, "dialog button.danger")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Label sets")).to_be_focused()
    assert httpx.get(f"{address}/v1/label-sets/by-keyboard").status_code == 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme_and_the_switch_wins(open_page: OpenPage, scheme: Scheme) -> None:
    follows_scheme_until_switched(open_page(scheme=scheme), scheme)
