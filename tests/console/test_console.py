"""The try-it page in a real browser against the real process: what a visitor does and sees."""

from __future__ import annotations

import json
import subprocess
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


def ask(page: Page, *photos: str, labels: str = LABELS) -> None:
    page.get_by_label("Labels, one per line").fill(labels)
    page.set_input_files("#file", [PHOTOS / photo for photo in photos or ("cat.jpg",)])


def names(page: Page, kind: str) -> list[str]:
    return [text.strip() for text in page.locator(f'.bars[data-kind="{kind}"] .name').all_inner_texts()]


def expect_adapted(page: Page) -> None:
    expect(page.locator("#state")).to_have_attribute("data-state", "adapted", timeout=PATIENCE_MS)


def give(page: Page, event: str, script: str) -> None:
    """Drops or pastes the file that `script` makes."""
    member = "dataTransfer" if event == "drop" else "clipboardData"
    page.evaluate(
        f"""async ([event, member]) => {{
            const data = new DataTransfer();
            data.items.add({script});
            const kind = event === "drop" ? DragEvent : ClipboardEvent;
            window.dispatchEvent(new kind(event, {{ [member]: data, bubbles: true, cancelable: true }}));
        }}""",
        [event, member],
    )


def test_an_image_and_labels_give_ranked_bars_that_become_adapted(open_page: OpenPage) -> None:
    page = open_page()
    ask(page)
    expect_adapted(page)
    scores = [float(text.strip("< %")) for text in page.locator('.bars[data-kind="adapted"] .score').all_inner_texts()]
    assert names(page, "plain")[0] == "cat"
    assert names(page, "adapted")[0].startswith("cat")
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(100, abs=1)
    assert page.locator("#timing-list dt").count() >= 3
    expect(page.locator("#facts")).to_contain_text("bundled")


def test_many_images_stand_in_a_list_and_one_in_detail(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, "cat.jpg", "rocket.jpg", "coffee.jpg")
    expect_adapted(page)
    rows = page.get_by_role("list", name="Images").get_by_role("listitem")
    expect(rows).to_have_count(3)
    rows.nth(1).get_by_role("button", name="rocket.jpg").first.click()
    assert names(page, "adapted")[0].startswith("rocket")
    page.get_by_role("button", name="Remove coffee.jpg").click()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator("#empty")).to_be_visible()


def test_a_threshold_rejects_at_once_and_without_asking_again(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, "cat.jpg", "camera.jpg")
    expect_adapted(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_label("Reject below").fill("90")
    expect(page.get_by_role("button", name="camera.jpg").first).to_contain_text("rejected")
    expect(page.locator("#reject-note")).to_have_text("1 of 2 images rejected")
    assert not [url for url in asked if "classify" in url]


def test_another_method_can_be_chosen(open_page: OpenPage) -> None:
    page = open_page()
    ask(page)
    expect_adapted(page)
    page.get_by_text("Method and scores").click()
    page.get_by_label("Method", exact=True).select_option("zero-shot")
    expect(page.locator("#state")).to_have_text("Plain (zero-shot)", timeout=PATIENCE_MS)
    assert names(page, "adapted") == []
    page.get_by_label("Scores").select_option("independent")
    page.get_by_label("Labels shown").fill("2")
    page.keyboard.press("Tab")
    expect(page.locator(".bars li")).to_have_count(2)


def test_what_was_asked_can_be_copied_and_run(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = open_page()
    ask(page, labels="cat\ndog's nose")
    expect_adapted(page)
    page.get_by_text("The same from your code").click()
    page.get_by_role("button", name="Copy as curl").click()
    curl = page.evaluate("navigator.clipboard.readText()")
    page.get_by_role("button", name="Copy as Python").click()
    code = page.evaluate("navigator.clipboard.readText()")
    ran = subprocess.run(curl, shell=True, cwd=PHOTOS, capture_output=True, check=True, timeout=60)
    monkeypatch.chdir(PHOTOS)
    exec(compile(code, "snippet", "exec"), {})
    assert json.loads(ran.stdout)["results"][0]["predictions"][0]["label"] == "cat"
    assert capsys.readouterr().out.splitlines()[0].endswith("cat")


def test_typed_labels_can_be_stored_and_used_again(open_page: OpenPage, address: str) -> None:
    page = open_page()
    ask(page, "rocket.jpg")
    page.get_by_text("Store these as a label set").click()
    page.get_by_label("Name of the label set").fill("typed")
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.get_by_label("Label set", exact=True)).to_contain_text("typed (5 classes, ready)", timeout=PATIENCE_MS)
    expect_adapted(page)
    assert httpx.get(f"{address}/v1/label-sets/typed").json()["classes"][0] == "cat"


def test_an_image_can_be_dropped_and_pasted(open_page: OpenPage) -> None:
    page = open_page()
    for event in ("drop", "paste"):
        give(page, event, f'new File([new Uint8Array(9)], "{event}.png", {{ type: "image/png" }})')
        expect(page.locator("#image-note")).to_contain_text(f"{event}.png")
    expect(page.locator("#image-note")).to_contain_text("2 images in all")


def test_a_problem_is_told_in_words(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Labels, one per line").fill("cat, dog")
    broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0 nothing"}
    page.set_input_files("#file", broken)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This file cannot be read as an image", timeout=PATIENCE_MS)
    expect(alert).to_contain_text("request ")
    page.set_input_files("#file", PHOTOS / "cat.jpg")  # one that cannot be read does not keep the others from it
    expect(page.get_by_role("button", name="broken.jpg").first).to_contain_text("cannot be read", timeout=PATIENCE_MS)


def test_a_limit_is_named_before_anything_is_sent(open_page: OpenPage) -> None:
    page = open_page()
    give(page, "drop", 'new File([new Uint8Array(30 * 1024 * 1024)], "big.jpg", { type: "image/jpeg" })')
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("An image may have at most 20 MB; here it is 30 MB.")
    expect(alert).to_contain_text("max_image_bytes")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "The service cannot be reached"),
        ({"type": "/problems/overloaded", "title": "x", "status": 429, "detail": "9 wait.", "retry_after": 7}, "7.0 s"),
        ({"type": "/problems/limit-exceeded", "title": "x", "status": 413, "detail": "x", "limit": "max_classes",
          "allowed": 10000, "actual": 12000}, "at most 10,000 classes; here it is 12,000 classes."),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(open_page: OpenPage, answer: dict[str, object] | None, words: str) -> None:
    page = open_page()
    status = 0 if answer is None else int(str(answer["status"]))
    page.route(
        "**/v1/classify",
        lambda route: route.abort() if answer is None else route.fulfill(status=status, json=answer),
    )
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text(words, timeout=PATIENCE_MS)


def test_asking_without_an_image_says_what_is_missing(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("alert")).to_contain_text("Choose, drop or paste an image first")


def test_a_key_is_asked_for_only_when_the_service_wants_one(open_page: OpenPage, address: str) -> None:
    page = open_page()
    sent: list[str | None] = []

    def guard(route: object) -> None:
        given = route.request.headers.get("authorization")  # type: ignore[attr-defined]  # playwright's Route
        sent.append(given)
        problem = {"type": "/problems/unauthorized", "title": "x", "status": 401, "detail": "Send a key."}
        right = given == "Bearer right"
        route.continue_() if right else route.fulfill(status=401, json=problem)  # type: ignore[attr-defined]

    page.route("**/v1/label-sets*", guard)
    dialog = page.get_by_role("dialog")
    page.get_by_role("link", name="Label sets").click()
    expect(dialog).to_contain_text("Send a key.")
    for key in ("wrong", "right"):
        with page.expect_response("**/v1/label-sets*"):
            dialog.get_by_label("API key").fill(key)
            page.keyboard.press("Enter")
    expect(page.get_by_label("Find")).to_be_visible()
    assert sent == [None, "Bearer wrong", "Bearer right"]
    page.get_by_role("button", name="Forget API key").click()
    page.reload()
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("An API key is needed")


def test_everything_comes_from_this_origin(address: str) -> None:
    answer = httpx.get(address)
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "https://" not in answer.text
    assert "style=" not in answer.text


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/console/console.css", "text/css"),
        ("/console/parts.css", "text/css"),
        ("/console/console.js", "text/javascript"),
        ("/favicon.svg", "image/svg+xml"),
    ],
)
def test_parts_have_their_type_and_are_revalidated(address: str, path: str, kind: str) -> None:
    first = httpx.get(address + path)
    again = httpx.get(address + path, headers={"If-None-Match": first.headers["etag"]})
    assert first.headers["content-type"].startswith(kind)
    assert again.status_code == 304


def test_a_module_fits_into_one_reading() -> None:
    folder = Path(__file__).resolve().parents[2] / "service/console"
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in folder.glob("*.js")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
