"""/v1/label-sets over ASGI."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from adapters.clip import Backbone
from service.routes.label_sets import events
from tests.service.fakes import soon
from tests.service.served import Kept, photo, served

ANIMALS = {"name": "animals", "classes": ["cat", {"name": "dog", "descriptions": ["a loyal pet"]}, "horse"]}


async def test_an_upload_is_durable_before_it_is_acknowledged(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        answer = await site.http.post("/v1/label-sets", json=ANIMALS)
        body = answer.json()
        assert (answer.status_code, body["status"], body["adapter"]) == (202, "queued", "self-tpt")
        assert answer.headers["Location"] == f"/v1/label-sets/{body['id']}"
        assert {f"record:{body['id']}", "name:animals"} == site.kept.records.content.keys()


async def test_uploading_waits_when_the_caller_prefers(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, slow=False) as site:
        answer = await site.http.post("/v1/label-sets", json=ANIMALS, headers={"Prefer": "wait=20"})
        body = answer.json()
        assert answer.headers["Preference-Applied"] == "wait=20"
        assert (body["status"], body["progress"], body["classes"]) == ("ready", 1.0, ["cat", "dog", "horse"])
        assert body["bytes"] > 0
        assert body["info"]["steps"] > 0
        again = await site.http.post("/v1/label-sets", json=ANIMALS)
        assert (again.status_code, again.json()["id"]) == (200, body["id"])


async def test_label_sets_are_found_by_id_and_name_listed_and_deleted(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        one = (await site.http.post("/v1/label-sets", json=ANIMALS)).json()
        await site.http.post("/v1/label-sets", json={"classes": ["a", "b"]})
        assert (await site.http.get("/v1/label-sets/animals")).json()["id"] == one["id"]
        first = (await site.http.get("/v1/label-sets?limit=1")).json()
        second = (await site.http.get(f"/v1/label-sets?limit=1&after={first['next']}")).json()
        assert [len(page["label_sets"]) for page in (first, second)] == [1, 1]
        assert second["next"] is None
        assert (await site.http.delete("/v1/label-sets/animals")).status_code == 204
        assert (await site.http.get(f"/v1/label-sets/{one['id']}")).status_code == 404
        assert (await site.http.delete("/v1/label-sets/animals")).status_code == 404


async def test_a_label_set_serves_images_before_and_after_its_adaptation(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await site.http.post("/v1/label-sets", json=ANIMALS)
        url, png = "/v1/classify?label_set=animals", {"Content-Type": "image/png"}
        assert (await site.http.post(url, content=photo(), headers=png)).json()["adapted"] is False
        site.slow.go.set()
        answer = await site.http.post(url, content=photo(), headers={**png, "Prefer": "wait=5"})
        assert answer.json()["adapted"] is True
        assert answer.json()["label_set"] == (await site.http.get("/v1/label-sets/animals")).json()["id"]


async def test_a_restart_answers_the_same_without_the_text_tower(tiny_backbone: Backbone) -> None:
    kept, url, png = Kept(), "/v1/classify?label_set=animals", {"Content-Type": "image/png"}
    async with served(tiny_backbone, kept, slow=False) as site:
        await site.http.post("/v1/label-sets", json=ANIMALS, headers={"Prefer": "wait=20"})
        before = (await site.http.post(url, content=photo(), headers=png)).json()
    prompts = tiny_backbone.text.prompts_encoded
    async with served(tiny_backbone, kept, slow=False) as site:
        after = (await site.http.post(url, content=photo(), headers=png)).json()
        assert site.value("selftpt_adaptations_total", adapter="self-tpt", outcome="ready") == 0
        assert site.value("selftpt_text_forwards_total") == prompts
    assert after["adapted"] is True
    assert after["results"] == before["results"]


async def followed(site: Any, url: str) -> list[tuple[str, dict[str, Any]]]:
    answer = await site.http.get(url)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in answer.text.strip().split("\n\n") if not block.startswith(":")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


async def test_events_follow_an_adaptation_to_its_end(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await site.http.post("/v1/label-sets", json=ANIMALS)
        following = asyncio.ensure_future(followed(site, "/v1/label-sets/animals/events"))
        sets = site.runtime.core.label_sets
        flight = sets.flight(await sets.find("animals"))
        await soon(lambda: flight.snapshot.progress > 0.2)
        site.slow.go.set()
        seen = await following
    assert [kind for kind, _ in seen] == ["progress"] * (len(seen) - 1) + ["ready"]
    assert len(seen) > 1
    assert seen[-1][1] == {"status": "ready", "progress": 1.0}


async def test_a_failure_is_the_last_event_and_is_shown(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.slow.fail = True
        site.slow.go.set()
        await site.http.post("/v1/label-sets", json=ANIMALS)
        kind, data = (await followed(site, "/v1/label-sets/animals/events"))[-1]
        assert (kind, data["error"]) == ("failed", "the loss became nan")
        shown = (await site.http.get("/v1/label-sets/animals")).json()
        assert (shown["status"], shown["error"]) == ("failed", "the loss became nan")


async def test_silence_is_filled_with_comments_and_a_shutdown_ends_the_stream(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await site.http.post("/v1/label-sets", json=ANIMALS)
        sets = site.runtime.core.label_sets
        flight = sets.flight(await sets.find("animals"))
        seen = [text async for text in until_comment(flight, site.runtime.drain)]
    assert seen[-1].startswith(":")


async def until_comment(flight: Any, drain: Any) -> Any:
    async for text in events(flight, heartbeat=0.02):
        yield text
        if text.startswith(":"):
            drain()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"classes": []}, 422, "classes"),
        ({"classes": ["a", "b", "A "]}, 422, "classes[2].name"),
        ({"classes": ["a", " "]}, 422, "classes[1].name"),
        ({"classes": ["a", 5]}, 422, "classes[1]"),
        ({"classes": ["a"], "templates": ["no slot"]}, 422, "templates[0]"),
        ({"classes": ["a"], "adapter": "nothing"}, 422, "adapter"),
        ({"classes": ["a"], "options": {"nothing": 1}}, 422, "options.nothing"),
        ({"classes": ["a"], "name": "has blanks"}, 422, "name"),
        ({"classes": ["a b c " * 9]}, 422, "classes[0].name"),
        ({"classes": ["a", "b", "c", "d"]}, 413, "classes"),
        ({"classes": ["x" * 99]}, 413, "classes[0]"),
        ({"class": ["a"]}, 422, "classes"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_it_is_stored(
    body: dict[str, Any], status: int, field: str, tiny_backbone: Backbone
) -> None:
    async with served(tiny_backbone, max_classes=3, max_name_characters=80) as site:
        answer = await site.http.post("/v1/label-sets", json=body)
        assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
        assert site.kept.records.content == {}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[" * 100_000, 413),
        (b'{"classes":["\\ud800","b"]}', 400),
        (b'{"classes":["\xff","b"]}', 400),
        (b'{"classes":["a\\u0000","b"]}', 202),
        ('{"classes":["\U0001f600","猫"]}'.encode(), 202),
        (b'{"classes":["a","b"],"options":{"learning_rate":1e999}}', 422),
        (b'{"classes":["a","b"],"options":{"steps":1000000000000000000000000000000}}', 422),
    ],
)
async def test_strange_texts_and_numbers_have_an_answer(content: bytes, status: int, tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, slow=False) as site:
        answer = await site.http.post("/v1/label-sets", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text


async def test_a_store_that_is_down_is_a_503_for_uploads_and_no_more(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.kept.records.broken = site.kept.states.broken = True
        upload = await site.http.post("/v1/label-sets", json=ANIMALS)
        assert (upload.status_code, upload.json()["type"]) == (503, "/problems/store-unavailable")
        ready = await site.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        answer = await site.http.post("/v1/classify?labels=a,b", content=photo(), headers={"Content-Type": "image/png"})
        assert answer.status_code == 200
