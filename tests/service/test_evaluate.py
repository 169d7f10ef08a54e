"""POST /v1/label-sets/{id}/evaluate: what is measured, and which uploads are refused."""

from __future__ import annotations

import io
import stat
import zipfile
from contextlib import ExitStack
from typing import Any

import pytest

from adapters.clip import Backbone
from service.errors import BadRequest, LimitExceeded, ServiceError, Unprocessable
from service.evaluation import Seen, report
from service.images.archives import ArchiveLimits, read_archive
from tests.service.label_images import created, drawn
from tests.service.served import Served, served

LIMITS = ArchiveLimits(entries=4, max_archive_bytes=100_000, max_archive_ratio=50.0, max_image_bytes=50_000)


def zipped(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, data in entries:
            archive.writestr(path, data)
    return buffer.getvalue()


async def evaluated(site: Served, label_set: str, files: list[tuple[str, tuple[str, bytes]]]) -> Any:
    return await site.http.post(f"/v1/label-sets/{label_set}/evaluate", files=files)


def test_a_report_counts_hits_errors_and_confidence() -> None:
    seen = [Seen(0, 0, 0.9), Seen(0, 1, 0.6), Seen(1, 1, 1.0), Seen(1, 1, 1.0)]
    found = report(seen, ["cat", "dog", "horse"])
    assert (found["top1"], found["ece"]) == (0.75, pytest.approx((0.1 + 0.6) / 4))
    assert found["per_class"][0] == {"label": "cat", "images": 2, "top1": 0.5}
    assert found["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert found["mistaken"] == [{"label": "cat", "found": "dog", "images": 1}]


async def test_fields_folders_and_archives_name_the_class(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "hot dog", adapter="zero-shot")
        files = [
            ("cat", ("one.png", drawn("cat", 1))),
            ("images", ("pictures/Hot_Dog/two.png", drawn("dog", 2))),
            ("archive", ("all.zip", zipped(("x/cat/3.png", drawn("cat", 3)), ("__MACOSX/x/cat/._3.png", b"junk")))),
        ]
        body = (await evaluated(site, label_set, files)).json()
    assert (body["images"], body["failures"], body["served_by"]) == (3, [], "zero-shot")
    assert {one["label"]: one["images"] for one in body["served"]["per_class"]} == {"cat": 2, "hot dog": 1}
    assert body["served"] == body["zero_shot"]


async def test_adapted_and_plain_answers_stand_side_by_side(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, slow=False) as site:
        label_set = await created(site, "cat", "dog", adapter="self-tpt")
        archive = zipped(
            *((f"{label}/{seed}.png", drawn(label, seed)) for label in ("cat", "dog") for seed in range(9))
        )
        headers = {"Content-Type": "application/zip", "Prefer": "wait=30"}
        answer = await site.http.post(f"/v1/label-sets/{label_set}/evaluate", content=archive, headers=headers)
    body = answer.json()
    assert (body["images"], body["adapted"], body["served_by"]) == (18, True, "self-tpt")
    assert all(0 <= body[which][figure] <= 1 for which in ("served", "zero_shot") for figure in ("top1", "ece"))


async def test_an_image_that_cannot_be_read_is_listed_and_does_not_count(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog", adapter="zero-shot")
        files = [("cat", ("good.png", drawn("cat", 1))), ("cat", ("bad.png", drawn("cat", 1)[:80]))]
        body = (await evaluated(site, label_set, files)).json()
    assert body["images"] == 1
    assert [(one["filename"], one["error"]["status"]) for one in body["failures"]] == [("bad.png", 422)]


@pytest.mark.parametrize(
    ("files", "status", "field"),
    [
        ([("bird", ("a.png", b"x"))], 422, "images"),
        ([("images", ("a.png", b"x"))], 422, "images"),
        ([("cat", ("a.png", b"x"))] * 4, 413, "images"),
        ([("archive", ("a.zip", zipped(*((f"cat/{n}.png", b"x") for n in range(4)))))], 413, "archive"),
        ([("archive", ("a.zip", zipped(("cat/a.png", b"x"))[:40]))], 400, None),
    ],
)
async def test_what_cannot_be_measured_is_refused(
    files: list[tuple[str, tuple[str, bytes]]], status: int, field: str | None, tiny_backbone: Backbone
) -> None:
    async with served(tiny_backbone, max_evaluation_images=3) as site:
        label_set = await created(site, "cat", "dog", adapter="zero-shot")
        answer = await evaluated(site, label_set, files)
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text


async def test_the_time_budget_and_the_number_at_once_are_bounded(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, evaluation_timeout=1e-6) as site:
        label_set = await created(site, "cat", "dog", adapter="zero-shot")
        files = [("cat", ("a.png", drawn("cat", 1)))]
        late = await evaluated(site, label_set, files)
        with ExitStack() as held:
            for _ in range(4):
                held.enter_context(site.runtime.evaluations)
            busy = await evaluated(site, label_set, files)
    assert (late.status_code, busy.status_code) == (504, 429)


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (zipped(("../cat/a.png", b"x")), Unprocessable),
        (zipped(("/etc/a.png", b"x")), Unprocessable),
        (zipped(("cat\\..\\a.png", b"x")), Unprocessable),
        (zipped(("a.png", b"x")), Unprocessable),
        (zipped(("cat/a.png", bytes(60_000)), compression=zipfile.ZIP_DEFLATED), LimitExceeded),
        (zipped(*((f"cat/{n}.png", bytes(40_000)) for n in range(3))), LimitExceeded),
        (b"PK\x03\x04 and no more", BadRequest),
    ],
)
def test_an_archive_that_means_harm_is_refused(archive: bytes, error: type[ServiceError]) -> None:
    with pytest.raises(error):
        read_archive(archive, LIMITS)


def test_an_archive_that_lies_about_sizes_is_not_unpacked_beyond_an_image() -> None:
    data = bytearray(zipped(("cat/a.png", bytes(90_000))))
    for at in (data.index(b"PK\x03\x04") + 22, data.index(b"PK\x01\x02") + 24):
        data[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(BadRequest):
        read_archive(bytes(data), LIMITS)


def test_links_and_folders_are_no_files() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("cat")
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert [entry.data for entry in read_archive(buffer.getvalue(), LIMITS)] == [b"/etc/passwd"]  # text, never followed
