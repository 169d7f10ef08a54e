"""The page at `/dashboard` in a real browser against the real process."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

from benchmarks.process import ServiceProcess
from tests.browsers import Scheme, follows_scheme_until_switched
from tests.e2e.calls import classify

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000
FIGURES = ("latency", "stages", "throughput", "queue", "age", "batches", "caches", "busy")

OpenPage = Callable[..., Page]


def drawn(page: Page) -> Page:
    """Once a step in which something happened has been drawn."""
    # a level line has no height, which counts as invisible
    expect(page.locator("#latency .line").first).to_be_attached(timeout=PATIENCE_MS)
    return page


def tile(page: Page, name: str) -> str:
    return page.locator("#tiles .tile", has_text=name).first.locator("dd").inner_text()


def test_it_shows_latency_stages_and_throughput_of_the_traffic_that_there_was(
    open_page: OpenPage, service: ServiceProcess
) -> None:
    page = drawn(open_page())
    assert tile(page, "p50").endswith("ms")
    assert tile(page, "Device busy").endswith("%")
    assert page.locator("#stages path.area").count() >= 3
    for figure in FIGURES:
        assert page.locator(f"#{figure} svg").count() == 1, figure
    expect(page.locator("#routes")).to_contain_text("/v1/classify")
    expect(page.locator("#state")).to_contain_text("live, bundled")


def test_it_is_live(open_page: OpenPage, service: ServiceProcess) -> None:
    page = drawn(open_page())
    row = page.locator("#routes tr", has_text="/v1/classify").locator("td").first
    before = int(row.inner_text().replace(",", ""))
    classify(service, "things")
    expect(row).to_have_text(str(before + 1), timeout=PATIENCE_MS)


def test_an_adaptation_is_shown_while_it_runs(open_page: OpenPage, service: ServiceProcess) -> None:
    page = drawn(open_page())
    classes = [f"thing number {number}" for number in range(400)]
    made = service.client.post("/v1/label-sets", json={"classes": classes, "name": "many"})
    assert made.status_code == 202
    expect(page.locator("#jobs progress")).to_have_count(1, timeout=PATIENCE_MS)
    expect(page.locator("#jobs")).to_contain_text("400 classes")
    service.client.delete("/v1/label-sets/many")
    expect(page.locator("#jobs")).to_contain_text("None under way", timeout=PATIENCE_MS)


def test_values_can_be_read_with_pointer_and_keyboard(open_page: OpenPage, service: ServiceProcess) -> None:
    page = drawn(open_page())
    page.locator("#latency .plot").hover()
    expect(page.locator("#latency .tip")).to_contain_text(":")
    page.locator("#stages .plot").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#stages .tip")).to_be_visible()
    label = page.locator("#latency .plot").get_attribute("aria-label") or ""
    assert label.startswith("Latency. p50 ")


def test_a_series_can_be_hidden(open_page: OpenPage) -> None:
    page = drawn(open_page())
    key = page.locator("#latency .legend").get_by_role("button", name="p99")
    key.click()
    expect(key).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#latency .line.series-2")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme_and_the_switch_wins(open_page: OpenPage, scheme: Scheme) -> None:
    follows_scheme_until_switched(open_page(scheme=scheme), scheme)


def test_a_narrow_window_needs_no_sideways_scrolling(open_page: OpenPage) -> None:
    page = drawn(open_page(width=360, height=740))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_everything_comes_from_this_origin_and_nothing_is_inline(service: ServiceProcess) -> None:
    answer = httpx.get(f"{service.url}/dashboard")
    policy = answer.headers["content-security-policy"]
    assert "'unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "style=" not in answer.text
    assert "://" not in answer.text
    for part in ("dashboard.css", "dashboard.js", "charts.js"):
        assert httpx.get(f"{service.url}/dashboard/{part}").status_code == 200
