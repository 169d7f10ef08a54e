"""The label-set pages in a real browser against the real process: made, taught, measured, compared, deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.conftest import CLASSES, Labelled

pytestmark = pytest.mark.browser

PATIENCE_MS = 90_000
NEW = "#/label-sets/new"
THINGS = "\n".join(CLASSES.values())

OpenPage = Callable[..., Page]


def choose(page: Page, button: str, files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button).click()
    chooser.value.set_files(files)


def create(page: Page, name: str, method: str | None = None) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    if method:
        page.locator("#page-label-sets").get_by_label("Method", exact=True).select_option(method)
    page.get_by_role("button", name="Create label set").click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible(timeout=PATIENCE_MS)


def tab(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Parts of the label set").get_by_role("link", name=name).click()


def status(page: Page) -> Locator:
    return page.locator("#page-label-sets h1 + div .chip")


def shown(address: str, ref: str) -> Any:
    return httpx.get(f"{address}/v1/label-sets/{ref}").json()


def test_no_label_sets_yet_says_what_they_are(open_page: OpenPage) -> None:
    page = open_page()
    page.route("**/v1/label-sets?*", lambda route: route.fulfill(json={"label_sets": [], "next": None}))
    page.get_by_role("link", name="Label sets").click()
    expect(page.locator("#page-label-sets .empty")).to_contain_text("There is no label set yet")


def test_pasted_names_become_a_label_set_that_is_followed_until_it_is_ready(open_page: OpenPage, address: str) -> None:
    page = open_page(NEW)
    page.get_by_label("Class names").fill(f"{THINGS}\nwillow\nCat")
    expect(page.get_by_text("5 classes, 1 repeated and left out")).to_be_visible()
    create(page, "pasted")
    expect(page.locator("#page-label-sets .adapting")).to_be_visible()
    expect(status(page)).to_have_text("Ready", timeout=PATIENCE_MS)
    expect(page.get_by_text("Adapted in")).to_be_visible()
    page.get_by_role("link", name="Label sets").click()
    page.get_by_label("Find").fill("pasted")
    expect(page.get_by_role("list", name="Label sets").get_by_role("listitem")).to_have_count(1)


@pytest.mark.parametrize(
    ("way", "text", "summary"),
    [
        (
            "CSV",
            'class,aliases\n"cat, tabby",kitten|puss\ndog,\n',
            "2 classes, 1 with more than a name: cat, tabby, dog",
        ),
        ("Descriptions", "cat: has whiskers\ncat: purrs\ndog", "2 classes, 1 with more than a name: cat, dog"),
    ],
)
def test_tables_and_descriptions_are_read(open_page: OpenPage, address: str, way: str, text: str, summary: str) -> None:
    page = open_page(NEW)
    page.get_by_role("radio", name=way).check()
    page.locator("#page-label-sets textarea").first.fill(text)
    expect(page.get_by_text(summary)).to_be_visible()
    with page.expect_request("**/v1/label-sets") as sent:
        create(page, f"from-{way}", "zero-shot")
    first = sent.value.post_data_json["classes"][0]
    assert first["aliases"] or first["descriptions"] == ["has whiskers", "purrs"]
    assert len(shown(address, f"from-{way}")["classes"]) == 2


def test_a_refused_label_set_keeps_what_was_typed(open_page: OpenPage) -> None:
    page = open_page(NEW)
    page.get_by_label("Class names").fill("cat\ndog")
    page.get_by_label("Name", exact=True).fill("has blanks")
    page.get_by_role("button", name="Create label set").click()
    expect(page.get_by_role("alert")).to_contain_text("name")
    expect(page.get_by_label("Class names")).to_have_value("cat\ndog")


def test_folders_of_images_teach_a_method_and_it_is_compared(
    open_page: OpenPage, address: str, labelled: Labelled
) -> None:
    page = open_page(NEW)
    page.get_by_role("radio", name="Image folders").check()
    choose(page, "Choose a folder", labelled.folders)
    expect(page.get_by_text("4 classes: astronaut, cat, cup of coffee, rocket")).to_be_visible()
    create(page, "taught", "coop")
    expect(page.get_by_text("8 images, at least 2 in each class")).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Show the images of cat").click()
    kept = page.locator(".thumbs img")
    expect(kept).to_have_count(2)
    assert (
        kept.evaluate_all("all => Promise.all(all.map((one) => one.decode().then(() => one.naturalWidth)))")
        == [160] * 2
    )
    page.get_by_text("Options of the method").click()
    page.get_by_label("steps", exact=True).fill("12")
    page.get_by_role("button", name="Start the fit").click()
    expect(page.get_by_role("heading", name="This fit serves")).to_be_visible(timeout=PATIENCE_MS)
    assert shown(address, "taught")["fit"]["options"] == {"steps": 12}
    tab(page, "Compare")
    expect(page.get_by_role("checkbox", name="coop")).to_be_enabled()
    for name in ("dapt", "maple", "self-tpt"):
        page.get_by_role("checkbox", name=name).uncheck()
    choose(page, "Choose a zip", labelled.archive)
    page.get_by_role("button", name="Compare").click()
    rows = page.get_by_role("list", name="Methods").get_by_role("listitem")
    expect(rows.nth(1)).to_contain_text("95 % interval", timeout=PATIENCE_MS)
    page.get_by_role("radio", name="the stored support images (8)").check()
    page.get_by_role("button", name="Compare").click()
    expect(rows.nth(1)).to_contain_text("on held-out images", timeout=PATIENCE_MS)


def test_a_fit_can_be_cancelled_and_what_served_before_serves(
    open_page: OpenPage, address: str, labelled: Labelled
) -> None:
    made = {"classes": list(CLASSES.values()), "name": "cancelled", "adapter": "zero-shot"}
    one = httpx.post(f"{address}/v1/label-sets", json=made, headers={"Prefer": "wait=30"}).json()["id"]
    page = open_page(f"#/label-sets/{one}/support")
    choose(page, "Choose a folder", labelled.folders)
    expect(page.get_by_text("8 images")).to_be_visible(timeout=PATIENCE_MS)
    page.locator("#page-label-sets").get_by_label("Method", exact=True).select_option("coop")
    page.get_by_text("Options of the method").click()
    page.get_by_label("steps", exact=True).fill("1000")
    page.get_by_role("button", name="Start the fit").click()
    expect(page.locator("#page-label-sets .adapting")).to_contain_text("left", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Cancel the fit").click()
    expect(status(page)).to_have_text("Ready", timeout=PATIENCE_MS)
    assert (shown(address, one)["fit"], shown(address, one)["adapter"]) == (None, "zero-shot")
    page.get_by_role("button", name="Delete the images of cat").click()
    expect(page.get_by_text("6 images, at least 0 in each class")).to_be_visible()


def test_an_evaluation_shows_figures_charts_and_the_worst_images(
    open_page: OpenPage, address: str, labelled: Labelled
) -> None:
    body = {"classes": [*CLASSES.values(), "coffee machine"], "name": "measured", "adapter": "self-tpt"}
    one = httpx.post(f"{address}/v1/label-sets", json=body).json()["id"]
    page = open_page(f"#/label-sets/{one}/evaluate")
    choose(page, "Choose a zip", labelled.archive)
    expect(page.get_by_text("17 images of 4 classes")).to_be_visible()
    page.get_by_role("button", name="Evaluate").click()
    expect(page.locator(".tile").first).to_contain_text("%", timeout=PATIENCE_MS)
    expect(page.locator(".tile").first).to_contain_text("Adapted (self-tpt)")
    expect(page.get_by_text("1 image could not be read and did not count")).to_be_visible()
    expect(page.get_by_role("img", name="Reliability diagram")).to_have_count(2)
    matrix = page.get_by_role("img", name="Confusion matrix")
    expect(matrix).to_contain_text("astronaut")
    expect(page.get_by_role("region", name="Accuracy by class").get_by_role("row")).to_have_count(5)
    thumbnails = page.locator(".worst img")
    if thumbnails.count():
        expect(thumbnails.first).to_be_visible()
        assert thumbnails.first.evaluate("node => node.naturalWidth") == 160
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as JSON").click()
    assert saved.value.suggested_filename.startswith("evaluation-")


def test_folders_that_are_no_class_are_named(open_page: OpenPage, address: str, labelled: Labelled) -> None:
    body = {"classes": ["cat", "dog"], "name": "other", "adapter": "zero-shot"}
    one = httpx.post(f"{address}/v1/label-sets", json=body).json()["id"]
    page = open_page(f"#/label-sets/{one}/evaluate")
    choose(page, "Choose a zip", labelled.archive)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("no class astronaut")
    expect(alert.get_by_role("listitem")).to_have_count(3)
    choose(page, "Choose a folder", labelled.folders / "cat")
    expect(page.get_by_text("2 images of 1 class,")).to_be_visible()
    page.get_by_role("button", name="Evaluate").click()
    expect(page.locator(".tile").first).to_be_visible(timeout=PATIENCE_MS)


def test_more_classes_make_a_version_and_deletion_asks_first(open_page: OpenPage, address: str) -> None:
    body = {"classes": ["cat", "dog"], "name": "pets", "adapter": "zero-shot"}
    one = httpx.post(f"{address}/v1/label-sets", json=body).json()["id"]
    page = open_page(f"#/label-sets/{one}")
    page.get_by_text("Add classes").click()
    page.get_by_label("More classes").fill("hamster")
    page.get_by_role("button", name="Add", exact=True).click()
    versions = page.get_by_role("region", name="Versions").get_by_role("listitem")
    expect(versions).to_have_count(2, timeout=PATIENCE_MS)
    expect(versions.first).to_contain_text("added hamster")
    tab(page, "Overview")
    page.get_by_role("button", name="Delete …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("pets, its 3 classes")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    dialog.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("heading", name="Label sets", level=1)).to_be_visible()
    assert shown(address, "pets")["status"] == 404
    page.goto(f"{address}/#/label-sets/{'0' * 64}")
    expect(page.get_by_role("alert")).to_contain_text("Not found")
