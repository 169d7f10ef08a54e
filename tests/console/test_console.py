"""The page at `/` in a real browser against the real process: what a visitor does and sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

PHOTOS = Path(__file__).resolve().parents[2] / "examples/images"
LABELS = "cat\ndog, cup of coffee\nrocket, astronaut"
PATIENCE_MS = 60_000

OpenPage = Callable[..., Page]


def ask(page: Page, labels: str = LABELS, photo: str = "cat.jpg") -> None:
    page.get_by_label("Labels, one per line").fill(labels)
    page.set_input_files("#file", PHOTOS / photo)


def names(page: Page, bars: str) -> list[str]:
    return [text.strip() for text in page.locator(f"{bars} .name").all_inner_texts()]


def expect_adapted(page: Page) -> None:
    expect(page.locator("#state")).to_have_attribute("data-state", "adapted", timeout=PATIENCE_MS)


def test_an_image_and_labels_give_ranked_bars_that_become_adapted(open_page: OpenPage) -> None:
    page = open_page()
    ask(page)
    expect(page.locator("#plain-bars li")).to_have_count(5, timeout=PATIENCE_MS)
    expect_adapted(page)
    assert names(page, "#plain-bars")[0] == "cat"
    assert names(page, "#adapted-bars")[0].startswith("cat")


def test_scores_fall_from_top_to_bottom_and_sum_to_one(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, photo="coffee.jpg")
    expect_adapted(page)
    scores = [float(text.strip("< %")) for text in page.locator("#adapted-bars .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(100, abs=1)


def test_timings_are_told_stage_by_stage(open_page: OpenPage) -> None:
    page = open_page()
    ask(page)
    expect(page.locator("#timing")).to_be_visible(timeout=PATIENCE_MS)
    assert page.locator("#timing-list dt").count() >= 3
    expect(page.locator("#facts")).to_contain_text("bundled")


def test_typed_labels_can_be_stored_and_used_again(open_page: OpenPage, address: str) -> None:
    page = open_page()
    ask(page, photo="rocket.jpg")
    page.get_by_text("Store these as a label set").click()
    page.get_by_label("Name of the label set").fill("things")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_label("Label set", exact=True)).to_contain_text("things (5 classes, ready)", timeout=PATIENCE_MS)
    expect_adapted(page)
    assert httpx.get(f"{address}/v1/label-sets/things").json()["classes"][0] == "cat"


def test_a_problem_is_told_in_words(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Labels, one per line").fill("cat, dog")
    page.set_input_files(
        "#file", {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0 nothing"}
    )
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible(timeout=PATIENCE_MS)
    expect(alert).to_contain_text("Undecodable image")
    expect(alert).to_contain_text("Request ")


def test_asking_without_an_image_says_what_is_missing(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("alert")).to_contain_text("Choose, drop or paste an image first")


def test_the_keyboard_is_enough(open_page: OpenPage) -> None:
    page = open_page()
    page.set_input_files("#file", PHOTOS / "cat.jpg")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "labels":
            break
    page.keyboard.type("cat, dog")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#plain-bars li")).to_have_count(2, timeout=PATIENCE_MS)


def test_an_image_can_be_dropped_and_pasted(open_page: OpenPage) -> None:
    page = open_page()
    for event, member in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """async ([event, member]) => {
                const pixel = await (await fetch("/favicon.svg")).blob();
                const data = new DataTransfer();
                data.items.add(new File([pixel], `${event}ed.svg`, { type: "image/svg+xml" }));
                const kind = event === "drop" ? DragEvent : ClipboardEvent;
                window.dispatchEvent(new kind(event, { [member]: data, bubbles: true, cancelable: true }));
            }""",
            [event, member],
        )
        expect(page.locator("#image-note")).to_contain_text(f"{event}ed.svg")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme_and_the_switch_wins(open_page: OpenPage, scheme: str) -> None:
    page = open_page(scheme=scheme)

    def is_dark() -> bool:
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in background.strip("rgb()").split(",")) < 3 * 128

    assert is_dark() == (scheme == "dark")
    page.locator("#theme").click()
    assert not is_dark()
    page.locator("#theme").click()
    assert is_dark()


def test_a_narrow_window_needs_no_sideways_scrolling(open_page: OpenPage) -> None:
    page = open_page(width=360, height=740)
    ask(page, labels=f"{LABELS}\na very long label that has to be wrapped somewhere in the middle of the line")
    expect_adapted(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_everything_comes_from_this_origin(address: str) -> None:
    answer = httpx.get(address)
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http://" not in answer.text.replace("http://www.w3.org", "")
    assert "https://" not in answer.text


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/console/console.css", "text/css"),
        ("/console/console.js", "text/javascript"),
        ("/console/view.js", "text/javascript"),
        ("/favicon.svg", "image/svg+xml"),
    ],
)
def test_parts_have_their_type_and_are_revalidated(address: str, path: str, kind: str) -> None:
    first = httpx.get(address + path)
    again = httpx.get(address + path, headers={"If-None-Match": first.headers["etag"]})
    assert first.headers["content-type"].startswith(kind)
    assert again.status_code == 304
