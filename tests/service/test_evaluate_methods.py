"""What an evaluation page needs: reliability, the worst images, other methods on the same images, earlier versions."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.clip import Backbone
from service.evaluation import Seen, report
from tests.service.label_images import created, drawn, supported
from tests.service.served import Served, served


async def evaluated(site: Served, label_set: str, query: str = "", images: int = 0) -> Any:
    files = [("cat", (f"{seed}.png", drawn("cat", seed))) for seed in range(images)] or None
    headers = {"Prefer": "wait=10"}
    return await site.http.post(f"/v1/label-sets/{label_set}/evaluate{query}", files=files, headers=headers)


def test_reliability_bins_add_up_to_the_calibration_error() -> None:
    found = report([Seen(0, 0, 0.9), Seen(0, 1, 0.91), Seen(1, 1, 0.35), Seen(1, 1, 1.0)], ["cat", "dog"])
    bins = found["reliability"]
    gaps = sum(one["images"] * abs(one["confidence"] - one["top1"]) for one in bins)
    assert [one["images"] for one in bins] == [1, 2, 1]
    assert gaps / 4 == pytest.approx(found["ece"], abs=1e-6)
    assert bins[1]["lower"] <= 0.9 < bins[1]["upper"]


def test_the_worst_images_are_the_surest_errors() -> None:
    seen = [Seen(0, 1, 0.4, "a"), Seen(0, 0, 0.99, "b"), Seen(1, 0, 0.8, "c")]
    assert [one["filename"] for one in report(seen, ["cat", "dog"])["worst"]] == ["c", "a"]


async def test_another_method_is_measured_without_serving_it(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.coop.go.set()
        label_set = await supported(site, "cat", "dog", adapter="zero-shot")
        body = (await evaluated(site, label_set, "?adapter=coop", images=3)).json()
        shown = (await site.http.get(f"/v1/label-sets/{label_set}")).json()
        assert (body["served_by"], body["images"], body["info"]) == ("coop", 3, {"steps": 3})
        assert (shown["adapter"], shown["fit"]) == ("zero-shot", None)
        fit = await site.http.post(
            f"/v1/label-sets/{label_set}/fit", json={"adapter": "coop"}, headers={"Prefer": "wait=5"}
        )
        assert (fit.json()["status"], site.coop.begun) == ("ready", 1)


async def test_a_method_without_its_support_images_is_refused_by_name(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog", adapter="zero-shot")
        answer = await evaluated(site, label_set, "?adapter=coop", images=1)
    assert (answer.status_code, answer.json()["field"]) == (422, "support.cat")


async def test_the_support_images_can_be_what_is_measured_on(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await supported(site, "cat", "dog", adapter="zero-shot", images=3)
        body = (await evaluated(site, label_set, "?source=support")).json()
        empty = await created(site, "horse", adapter="zero-shot")
        refused = await evaluated(site, empty, "?source=support")
    assert body["images"] == 6
    assert all(one["filename"].startswith(one["label"]) for one in body["served"]["worst"])
    assert (refused.status_code, refused.json()["field"]) == (422, "images")


async def test_a_label_set_tells_which_name_it_had_before(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        first = await created(site, "cat", name="pets", adapter="zero-shot")
        second = await created(site, "cat", "dog", name="pets", adapter="zero-shot")
        listed = {one["id"]: one for one in (await site.http.get("/v1/label-sets")).json()["label_sets"]}
        assert (listed[first]["name"], listed[first]["former_name"]) == (None, "pets")
        assert (listed[second]["name"], listed[second]["former_name"]) == ("pets", None)
        await created(site, "cat", name="pets", adapter="zero-shot")
        back = (await site.http.get("/v1/label-sets/pets")).json()
    assert (back["id"], back["former_name"]) == (first, None)


async def test_a_fit_tells_which_fit_serves_until_it_is_ready(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.coop.go.set()
        label_set = await supported(site, "cat", "dog", adapter="coop")
        path = f"/v1/label-sets/{label_set}"
        await site.http.post(f"{path}/fit", json={}, headers={"Prefer": "wait=5"})
        again = await site.http.post(f"{path}/fit", json={"adapter": "coop", "options": {"steps": 2}})
    assert again.json()["fit"]["former"]["options"] == {}
