"""Support images over HTTP: kept as uploaded, refused whole when one is bad, gone with their label set."""

from __future__ import annotations

import pytest

from adapters.clip import Backbone
from service.labels.support import PART_BYTES, SupportLimits, SupportShelves
from tests.service.fakes import DictStore
from tests.service.label_images import created, drawn, put, supported
from tests.service.served import Kept, photo, served

LIMITS = SupportLimits(8, 16, 1 << 24, 100)


def kinds(kept: Kept, *names: str) -> list[str]:
    return [key for key in kept.records.content if key.startswith(names)]


async def test_images_and_captions_are_listed_by_class(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog")
        answer = await put(site, label_set, "dog", drawn("dog", 1), drawn("dog", 2), captions='[null, " a  dog "]')
        assert answer.status_code == 200
        assert [one["caption"] for one in answer.json()["images"]] == [None, "a dog"]
        shown = (await site.http.get(f"/v1/label-sets/{label_set}/support")).json()
        assert (shown["images"], shown["fewest"], shown["classes"]) == (2, 0, [answer.json()])


async def test_the_same_upload_again_changes_nothing_and_another_one_replaces(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog")
        first = await put(site, label_set, "cat", drawn("cat", 1), drawn("cat", 2))
        before = dict(site.kept.records.content)
        again = await put(site, label_set, "cat", drawn("cat", 1), drawn("cat", 2))
        assert (again.json(), site.kept.records.content) == (first.json(), before)
        await put(site, label_set, "cat", drawn("cat", 3))
        assert len(kinds(site.kept, "image:")) == 1
        assert (await site.http.get(f"/v1/label-sets/{label_set}/support")).json()["images"] == 1


@pytest.mark.parametrize("name", ["a/b", "50 % off", "猫", "x?y#z", "Crème Brûlée", "a+b"])
async def test_any_class_name_can_stand_in_the_path(name: str, tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "other", name)
        answer = await put(site, label_set, name, drawn("cat", 1))
        assert (answer.status_code, answer.json()["label"]) == (200, name)
        shown = (await site.http.get(f"/v1/label-sets/{label_set}/support")).json()
        assert [one["label"] for one in shown["classes"]] == [name]


async def test_a_bad_image_refuses_them_all_and_is_named(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog")
        answer = await put(site, label_set, "cat", drawn("cat", 1), drawn("cat", 2)[:90])
        body = answer.json()
        assert (answer.status_code, body["field"], body["filename"]) == (422, "images[1]", "1.png")
        assert body["detail"].startswith("1.png: ")
        assert kinds(site.kept, "support:", "image:") == []


@pytest.mark.parametrize(
    ("label", "images", "captions", "status"),
    [
        ("bird", 1, None, 404),
        ("cat", 1, "no JSON", 422),
        ("cat", 1, '["a", "b"]', 422),
        ("cat", 1, "[5]", 422),
    ],
)
async def test_what_makes_no_sense_is_refused(
    label: str, images: int, captions: str | None, status: int, tiny_backbone: Backbone
) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog")
        answer = await put(site, label_set, label, *(drawn("cat", seed) for seed in range(images)), captions=captions)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.status_code == status, answer.text
        assert kinds(site.kept, "support:", "image:") == []


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("max_caption_characters", 3), ("max_support_images", 2), ("max_support_total", 2), ("max_support_bytes", 4000)],
)
async def test_what_is_too_much_is_refused_by_the_name_of_its_limit(
    limit: str, allowed: int, tiny_backbone: Backbone
) -> None:
    async with served(tiny_backbone, **{limit: allowed}) as site:
        label_set = await created(site, "cat", "dog")
        images = [drawn("cat", seed) for seed in range(3)]
        answer = await put(site, label_set, "cat", *images, captions='["long", null, null]')
        assert (answer.status_code, answer.json()["limit"]) == (413, limit), answer.text
        assert kinds(site.kept, "support:", "image:") == []


async def test_images_go_with_their_class_or_with_the_label_set(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await supported(site, "cat", "dog")
        url = f"/v1/label-sets/{label_set}/support"
        assert (await site.http.delete(f"{url}/cat")).status_code == 204
        assert (await site.http.delete(f"{url}/cat")).status_code == 404
        assert len(kinds(site.kept, "image:")) == 2
        await site.http.delete(f"/v1/label-sets/{label_set}")
        assert site.kept.records.content == {}


@pytest.mark.parametrize(("kind", "media", "ending"), [("PNG", "image/png", "png"), ("JPEG", "image/jpeg", "jpg")])
async def test_an_image_comes_back_as_it_was_uploaded_and_as_an_attachment(
    kind: str, media: str, ending: str, tiny_backbone: Backbone
) -> None:
    async with served(tiny_backbone) as site:
        label_set, data = await created(site, "cat", "dog"), photo(kind)
        kept = (await put(site, label_set, "dog", data)).json()
        url = f"/v1/label-sets/{label_set}"
        assert (await site.http.get(f"{url}/support/dog")).json() == kept
        assert (await site.http.get(f"{url}/support/cat")).json() == {"label": "cat", "count": 0, "images": []}
        digest = kept["images"][0]["digest"]
        answer = await site.http.get(f"{url}/support-images/{digest}")
    assert (answer.content, answer.headers["Content-Type"]) == (data, media)
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{digest[:12]}.{ending}"'
    assert (answer.headers["X-Content-Type-Options"], answer.headers["Cache-Control"]) == ("nosniff", "no-store")


async def test_an_image_that_is_gone_or_never_was_is_not_found(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog")
        digest = (await put(site, label_set, "cat", drawn("cat", 1))).json()["images"][0]["digest"]
        other = await created(site, "cat", "horse")
        url = f"/v1/label-sets/{label_set}"
        await site.http.delete(f"{url}/support/cat")
        asked = [f"{url}/support-images/{digest}", f"{url}/support-images/x", f"{url}/support/bird",
                 f"/v1/label-sets/{other}/support-images/{digest}"]  # fmt: skip
        assert [(await site.http.get(path)).status_code for path in asked] == [404] * 4


async def test_a_store_that_is_down_refuses_the_images(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog")
        site.kept.records.broken = True
        answer = await put(site, label_set, "cat", drawn("cat", 1))
        site.kept.records.broken = False
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/store-unavailable")


async def test_large_images_are_kept_in_parts_and_read_whole() -> None:
    shelves, data = SupportShelves(DictStore(), LIMITS), bytes(range(256)) * (PART_BYTES // 100)
    (image,) = await shelves.put("a", 0, [(data, None)])
    assert await shelves.read("a", 0, image) == data
    assert (await shelves.all("a"))[0] == (image,)


async def test_what_a_fit_froze_outlives_a_replacement_until_it_is_tidied_away() -> None:
    store = DictStore()
    shelves = SupportShelves(store, LIMITS)
    await shelves.put("a", 0, [(b"old", "one")])
    digest, _ = await shelves.freeze("a")
    await shelves.put("a", 0, [(b"new", None)])
    await shelves.tidy("a", {digest})
    ((row, image),) = await shelves.frozen("a", digest)
    assert await shelves.read("a", row, image) == b"old"
    await shelves.tidy("a", set())
    assert len([key for key in store.content if key.startswith(("image:", "fit:"))]) == 1
