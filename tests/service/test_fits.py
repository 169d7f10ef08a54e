"""Few-shot fits over HTTP: jobs with progress, deadline and cancel, that outlive a restart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.clip import Backbone
from tests.service.fakes import soon
from tests.service.label_images import created, drawn, put, supported
from tests.service.served import Kept, Served, served

PNG = {"Content-Type": "image/png"}


async def fit(site: Served, label_set: str, wait: int = 0, **body: Any) -> Any:
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    return await site.http.post(f"/v1/label-sets/{label_set}/fit", json=body, headers=headers)


async def shown(site: Served, label_set: str) -> dict[str, Any]:
    body: dict[str, Any] = (await site.http.get(f"/v1/label-sets/{label_set}")).json()
    return body


async def classified(site: Served, label_set: str) -> dict[str, Any]:
    answer = await site.http.post(f"/v1/classify?label_set={label_set}", content=drawn("cat", 9), headers=PNG)
    body: dict[str, Any] = answer.json()
    return body


async def test_without_images_a_few_shot_label_set_waits_and_serves_zero_shot(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog", adapter="coop")
        body = await shown(site, label_set)
        assert (body["status"], body["adapter"], body["fit"]) == ("awaiting-support", "coop", None)
        answer = await classified(site, label_set)
        assert (answer["adapted"], answer["served_by"], answer["status"]) == (False, "zero-shot", "awaiting-support")
        events = (await site.http.get(f"/v1/label-sets/{label_set}/events")).text
        assert events.startswith("event: awaiting-support")
        assert site.coop.begun == 0


async def test_a_fit_gets_the_images_in_label_order_with_their_captions(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.coop.go.set()
        label_set = await created(site, "cat", "dog", adapter="coop")
        await put(site, label_set, "dog", drawn("dog", 1), captions='["a dog"]')
        await put(site, label_set, "cat", drawn("cat", 1), drawn("cat", 2))
        answer = await fit(site, label_set, wait=5)
        body = answer.json()
        assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/label-sets/{label_set}")
        assert (body["status"], body["info"], body["fit"]["adapter"]) == ("ready", {"steps": 3}, "coop")
        (support,) = site.coop.supports
        assert support is not None
        assert support.labels.tolist() == [0, 0, 1]
        assert support.captions == (None, None, "a dog")
        assert support.pixels.shape == (3, 3, 32, 32)
        assert (await classified(site, label_set))["served_by"] == "coop"


async def test_until_a_fit_is_ready_what_was_there_serves(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.slow.go.set()
        label_set = await supported(site, "cat", "dog", adapter="self-tpt")
        await site.http.get(f"/v1/label-sets/{label_set}/events")
        assert (await fit(site, label_set, adapter="coop")).status_code == 202
        await soon(lambda: site.coop.begun > 0)
        answer = await classified(site, label_set)
        assert (answer["adapter"], answer["served_by"], answer["adapted"]) == ("coop", "self-tpt", True)
        assert answer["status"] == "adapting"
        site.coop.go.set()
        events = (await site.http.get(f"/v1/label-sets/{label_set}/events")).text
        assert '"status": "ready"' in events
        assert (await classified(site, label_set))["served_by"] == "coop"


async def test_the_same_fit_again_is_no_work_and_other_images_are(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.coop.go.set()
        label_set = await supported(site, "cat", "dog", adapter="coop")
        first = (await fit(site, label_set, wait=5)).json()
        again = await fit(site, label_set, wait=5)
        assert (again.status_code, again.json()["fit"]) == (200, first["fit"])
        assert site.coop.begun == 1
        await put(site, label_set, "cat", drawn("cat", 77))
        other = await fit(site, label_set, wait=5)
        assert (other.status_code, site.coop.begun) == (202, 2)
        assert other.json()["fit"]["support"] != first["fit"]["support"]


async def test_a_fit_survives_a_restart_without_being_made_again(tiny_backbone: Backbone) -> None:
    kept = Kept()
    async with served(tiny_backbone, kept, slow=False) as site:
        label_set = await supported(site, "cat", "dog", images=4, adapter="coop")
        body = (await fit(site, label_set, wait=60, options={"steps": 3})).json()
        assert body["status"] == "ready", body
        assert {"heldout_top1", "heldout_top1_zero_shot"} <= body["info"].keys()
        before = await classified(site, label_set)
    async with served(tiny_backbone, kept, slow=False) as site:
        after = await classified(site, label_set)
        assert (await shown(site, label_set))["fit"] == body["fit"]
        assert site.value("selftpt_adaptations_total", adapter="coop", outcome="ready") == 0
    assert (after["results"], after["served_by"]) == (before["results"], "coop")


async def test_a_lost_class_state_is_fitted_again_from_the_kept_images(tiny_backbone: Backbone) -> None:
    kept = Kept()
    async with served(tiny_backbone, kept) as site:
        site.coop.go.set()
        label_set = await supported(site, "cat", "dog", adapter="coop")
        await fit(site, label_set, wait=5)
    kept.states.content.clear()
    async with served(tiny_backbone, kept) as site:
        site.coop.go.set()
        await soon(lambda: site.coop.begun == 1)
        await site.http.get(f"/v1/label-sets/{label_set}/events")
        assert (await shown(site, label_set))["status"] == "ready"


async def test_cancelling_brings_back_what_served_before(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await supported(site, "cat", "dog", adapter="coop")
        await fit(site, label_set)
        await soon(lambda: site.coop.begun > 0)
        url = f"/v1/label-sets/{label_set}/fit"
        assert (await site.http.delete(url)).status_code == 204
        assert site.value("selftpt_adaptations_total", adapter="coop", outcome="cancelled") == 1
        body = await shown(site, label_set)
        assert (body["status"], body["fit"]) == ("awaiting-support", None)
        assert (await site.http.delete(url)).status_code == 404


async def test_a_deadline_ends_a_fit_with_a_reason_that_lasts(tiny_backbone: Backbone) -> None:
    kept = Kept()
    async with served(tiny_backbone, kept) as site:
        label_set = await supported(site, "cat", "dog", adapter="coop")
        body = (await fit(site, label_set, wait=10, deadline_seconds=0.2)).json()
        assert (body["status"], body["error"]) == ("failed", "not done within the deadline of 0.2 s")
        await soon(lambda: b"not done within" in kept.records.content[f"record:{label_set}"])
        assert (await classified(site, label_set))["served_by"] == "zero-shot"
        assert site.coop.begun == 1
    async with served(tiny_backbone, kept) as site:
        assert (await shown(site, label_set))["status"] == "failed"
        site.coop.go.set()
        assert (await fit(site, label_set, wait=5)).json()["status"] == "ready"


async def test_a_failed_fit_leaves_the_former_one_serving(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.coop.go.set()
        label_set = await supported(site, "cat", "dog", adapter="coop")
        await fit(site, label_set, wait=5)
        await put(site, label_set, "cat", drawn("cat", 50))
        site.coop.fail = True
        body = (await fit(site, label_set, wait=5)).json()
        assert (body["status"], body["error"]) == ("failed", "the loss became nan")
        await asyncio.sleep(0.05)
        answer = await classified(site, label_set)
        assert (answer["served_by"], answer["status"]) == ("coop", "failed")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"adapter": "coop", "options": {"nothing": 1}}, 422, "options.nothing"),
        ({"adapter": "nothing"}, 422, "adapter"),
        ({"adapter": "self-tpt"}, 422, "adapter"),
        ({"adapter": "auto", "options": {"steps": 3}}, 422, "options"),
        ({"deadline_seconds": 0}, 422, "deadline_seconds"),
        ({"deadline_seconds": 1e9}, 413, "deadline_seconds"),
        ({"adapter": "coop"}, 422, "support.dog"),
    ],
)
async def test_a_fit_that_cannot_be_is_refused_at_once(
    body: dict[str, Any], status: int, field: str, tiny_backbone: Backbone
) -> None:
    async with served(tiny_backbone) as site:
        label_set = await created(site, "cat", "dog")
        await put(site, label_set, "cat", drawn("cat", 1))
        answer = await fit(site, label_set, **body)
        assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
        assert (await shown(site, label_set))["fit"] is None


async def test_methods_that_learn_from_images_serve_no_inline_labels(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        url = "/v1/classify?labels=cat,dog&adapter=coop"
        answer = await site.http.post(url, content=drawn("cat", 1), headers=PNG)
        assert (answer.status_code, answer.json()["field"]) == (422, "adapter")


async def test_adding_a_class_makes_another_label_set_under_the_same_name(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.slow.go.set()
        old = await supported(site, "cat", "dog", name="pets")
        answer = await site.http.post("/v1/label-sets/pets/classes", json={"classes": ["horse"]})
        body = answer.json()
        assert (answer.status_code, body["classes"], body["name"]) == (202, ["cat", "dog", "horse"], "pets")
        assert answer.headers["Location"] == f"/v1/label-sets/{body['id']}"
        assert (await shown(site, "pets"))["id"] == body["id"]
        assert (await shown(site, old))["classes"] == ["cat", "dog"]
        kept = (await site.http.get("/v1/label-sets/pets/support")).json()
        assert [(one["label"], one["count"]) for one in kept["classes"]] == [("cat", 2), ("dog", 2)]
        twice = await site.http.post("/v1/label-sets/pets/classes", json={"classes": ["CAT"]})
        assert (twice.status_code, twice.json()["field"]) == (422, "classes[3].name")


async def test_auto_says_what_it_chose_and_serves_nothing_worse_than_zero_shot(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, slow=False) as site:
        label_set = await supported(site, "cat", "dog", images=2)
        before = await shown(site, label_set)
        assert (before["info"]["chosen"], "class names" in before["info"]["auto_reason"]) == ("self-tpt", True)
        body = (await fit(site, label_set, wait=60)).json()
        assert (body["status"], body["adapter"]) == ("ready", "auto"), body
        info = body["info"]
        assert "2 or more images per class" in info["auto_reason"] or "lost to zero-shot" in info["auto_reason"]
        answer = await classified(site, label_set)
        assert answer["served_by"] == info["chosen"]
        assert answer["adapted"] is (info["chosen"] != "zero-shot")
        assert info["chosen"] == "zero-shot" or info["support_top1"] >= info["support_top1_zero_shot"]


async def test_a_closed_set_takes_no_further_class(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await created(site, "cat", "dog", adapter="tgp-t", name="pets")
        answer = await site.http.post("/v1/label-sets/pets/classes", json={"classes": ["horse"]})
        body = answer.json()
        assert (answer.status_code, body["type"], body["adapter"]) == (409, "/problems/closed-set-adapter", "tgp-t")
        assert (await shown(site, "pets"))["classes"] == ["cat", "dog"]


async def test_a_fit_that_replaces_a_running_one_keeps_its_images(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        label_set = await supported(site, "cat", "dog", adapter="coop")
        await fit(site, label_set)
        await soon(lambda: site.coop.begun == 1)
        await put(site, label_set, "cat", drawn("cat", 60))
        await fit(site, label_set)
        await soon(lambda: site.coop.begun == 2)
        await asyncio.sleep(0.1)
        frozen = [key for key in site.kept.records.content if key.startswith("fit:")]
        images = [key for key in site.kept.records.content if key.startswith("image:")]
        assert (len(frozen), len(images)) == (1, 3)
        site.coop.go.set()
        await site.http.get(f"/v1/label-sets/{label_set}/events")
        assert (await shown(site, label_set))["status"] == "ready"
