"""Tenants: what one has uploaded is not there for another, whichever way it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from adapters.clip import Backbone
from service.labels.records import RecordBook
from service.security.tenants import tenant_store
from tests.security.keys import add_key
from tests.service.fakes import DictStore, soon
from tests.service.served import Kept, Served, photo, served

CLASSES = {"classes": ["cat", "dog"], "name": "pets", "adapter": "zero-shot"}
ANY = ("classify", "label-sets")


class Two(NamedTuple):
    service: Served
    acme: httpx.AsyncClient
    other: httpx.AsyncClient


def client(service: Served, header: dict[str, str]) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers=header)


@pytest.fixture
async def two(tiny_backbone: Backbone, tmp_path: Path) -> AsyncIterator[Two]:
    path = tmp_path / "keys.json"
    headers = [add_key(path, *ANY, tenant=name) for name in ("acme", "other")]
    async with (
        served(tiny_backbone, api_keys_file=path) as service,
        client(service, headers[0]) as acme,
        client(service, headers[1]) as other,
    ):
        yield Two(service, acme, other)


async def test_a_label_set_of_another_tenant_is_not_there(two: Two) -> None:
    one = (await two.acme.post("/v1/label-sets", json=CLASSES, headers={"Prefer": "wait=5"})).json()["id"]
    for ref in (one, "pets"):
        for method, path in [
            ("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/support"), ("PUT", "/support/cat"),
            ("DELETE", "/support/cat"), ("POST", "/fit"), ("DELETE", "/fit"), ("POST", "/evaluate"),
        ]:  # fmt: skip
            answer = await two.other.request(method, f"/v1/label-sets/{ref}{path}")
            assert answer.status_code == 404, (method, path)
        more = await two.other.post(f"/v1/label-sets/{ref}/classes", json={"classes": ["cow"]})
        scored = await two.other.post("/v1/classify", params={"label_set": ref}, content=photo(), headers=RAW)
        assert {more.status_code, scored.status_code} == {404}
    assert (await two.acme.get("/v1/label-sets/pets")).status_code == 200


RAW = {"Content-Type": "image/png"}


async def test_a_support_image_is_only_for_its_tenant_and_for_keys_that_upload(two: Two, tmp_path: Path) -> None:
    await two.acme.post("/v1/label-sets", json=CLASSES)
    for http in (two.acme, two.other):
        assert (await http.get("/v1/label-sets/pets/support/cat")).status_code == (200 if http is two.acme else 404)
    picture = {"images": ("a.png", photo(), "image/png")}
    kept = (await two.acme.put("/v1/label-sets/pets/support/cat", files=picture)).json()
    path = f"/v1/label-sets/pets/support-images/{kept['images'][0]['digest']}"
    assert (await two.acme.get(path)).content == photo()
    assert (await two.other.get(path)).status_code == 404
    await two.other.post("/v1/label-sets", json=CLASSES)
    assert (await two.other.get(path)).status_code == 404
    reader = add_key(tmp_path / "keys.json", "classify", tenant="acme")
    two.service.runtime.keyring.reload()  # type: ignore[union-attr]  # this service asks for keys
    assert (await two.acme.get(path, headers=reader)).status_code == 403


async def test_the_answer_is_that_of_an_id_that_nobody_has(two: Two) -> None:
    one = (await two.acme.post("/v1/label-sets", json=CLASSES)).json()["id"]
    unknown = "0" * 64

    def told(answer: httpx.Response, ref: str) -> tuple[int, str, set[str]]:
        return answer.status_code, answer.text.replace(ref, "*").split('"request_id"')[0], set(answer.headers)

    theirs = told(await two.other.get(f"/v1/label-sets/{one}"), one)
    assert theirs == told(await two.other.get(f"/v1/label-sets/{unknown}"), unknown)


async def test_lists_show_the_own_label_sets_only(two: Two) -> None:
    await two.acme.post("/v1/label-sets", json=CLASSES)
    await two.other.post("/v1/label-sets", json={"classes": ["x", "y"]})
    for http, expected in ((two.acme, 2), (two.other, 2)):
        listed = (await http.get("/v1/label-sets", params={"after": "", "limit": 100})).json()
        assert (len(listed["label_sets"]), listed["next"]) == (1, None)
        assert listed["label_sets"][0]["class_count"] == expected
    behind = await two.other.get("/v1/label-sets", params={"after": "tenant:acme:record:"})
    assert len(behind.json()["label_sets"]) <= 1


async def test_the_same_content_is_new_to_each_and_computed_for_each(two: Two) -> None:
    """Neither the status, nor a state that is there already, tells that somebody else has uploaded the same."""
    waiting = {"Prefer": "wait=10"}
    answers = [await http.post("/v1/label-sets", json=CLASSES, headers=waiting) for http in (two.acme, two.other)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert two.service.value("selftpt_zero_shot_states_total", outcome="ready") == 2
    stored = two.service.kept.states.content
    await soon(lambda: len(stored) == 2)
    assert {key.rpartition("@")[2] for key in stored} == {"acme", "other"}


async def test_inline_labels_of_one_warm_nothing_for_another(two: Two) -> None:
    for http in (two.acme, two.other):
        options = {"labels": "cat,dog", "adapter": "zero-shot"}
        assert (await http.post("/v1/classify", params=options, content=photo(), headers=RAW)).status_code == 200
    assert two.service.value("selftpt_zero_shot_states_total", outcome="ready") == 2


async def test_deleting_the_own_leaves_that_of_the_other(two: Two) -> None:
    for http in (two.acme, two.other):
        await http.post("/v1/label-sets", json=CLASSES, headers={"Prefer": "wait=10"})
        picture = {"images": ("a.png", photo(), "image/png")}
        assert (await http.put("/v1/label-sets/pets/support/cat", files=picture)).status_code == 200
    assert (await two.acme.delete("/v1/label-sets/pets")).status_code == 204
    assert (await two.other.get("/v1/label-sets/pets/support")).json()["images"] == 1
    shown = (await two.other.get("/v1/label-sets/pets")).json()
    assert (shown["status"], shown["name"]) == ("ready", "pets")


async def test_what_was_stored_without_keys_belongs_to_the_default_tenant(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    kept, path = Kept(), tmp_path / "keys.json"
    async with served(tiny_backbone, kept) as before:
        one = (await before.http.post("/v1/label-sets", json=CLASSES)).json()["id"]
    old, new = add_key(path, *ANY), add_key(path, *ANY, tenant="new")
    async with served(tiny_backbone, kept, api_keys_file=path) as after:
        assert (await after.http.get("/v1/label-sets/pets", headers=old)).json()["id"] == one
        assert (await after.http.get("/v1/label-sets/pets", headers=new)).status_code == 404


async def test_label_sets_of_every_tenant_are_resumed(tiny_backbone: Backbone, tmp_path: Path) -> None:
    kept, path = Kept(), tmp_path / "keys.json"
    header = add_key(path, *ANY, tenant="acme")
    async with served(tiny_backbone, kept, api_keys_file=path) as first:
        await first.http.post("/v1/label-sets", json=CLASSES, headers=header | {"Prefer": "wait=10"})
    kept.states.content.clear()
    async with served(tiny_backbone, kept, api_keys_file=path) as second:
        shown = await second.http.get("/v1/label-sets/pets/events", headers=header)
        assert "event: ready" in shown.text


async def test_a_tenants_store_pages_through_its_own_keys_only() -> None:
    shared = DictStore()
    names = ("a", "b", "a-b")
    for name in names:
        for number in range(5):
            await tenant_store(shared, name).put(f"record:{number}", name.encode())
    for name in names:
        store = tenant_store(shared, name)
        first = await store.keys("record:", limit=3)
        rest = await store.keys("record:", after=first[-1], limit=9)
        assert [*first, *rest] == [f"record:{number}" for number in range(5)]
        assert await store.get("record:0") == name.encode()
    assert (await RecordBook(tenant_store(shared, "default")).page(after="", limit=9))[0] == []
