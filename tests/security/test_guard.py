"""Who gets past the door of the running application, and what is said and written down about it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.clip import Backbone
from service.security.scopes import ADMIN, needed_scopes
from tests.security.keys import add_key, id_of
from tests.service.served import Served, photo, served

LABELS = {"labels": "cat,dog"}
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
async def guarded(tiny_backbone: Backbone, path: Path) -> AsyncIterator[Served]:
    add_key(path, "admin")
    async with served(tiny_backbone, api_keys_file=path) as one:
        yield one


def fresh(one: Served) -> Served:
    keyring = one.runtime.keyring
    assert keyring is not None
    keyring.reload()
    return one


async def test_without_a_key_only_probes_and_pages_answer(guarded: Served) -> None:
    for open_path in ("/livez", "/readyz", "/", "/docs", "/openapi.json", "/problems/not-found"):
        assert (await guarded.http.get(open_path)).status_code == 200, open_path
    for closed in ("/metrics", "/v1/label-sets", "/v1/limits", "/v1/models", "/nothing", "/v1/label-sets/" + "0" * 64):
        answer = await guarded.http.get(closed)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="selftpt"'), closed
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("classify", {"classify", "show"}),
        ("label-sets", {"upload", "show", "delete"}),
        ("metrics", {"metrics"}),
        ("admin", {"classify", "show", "upload", "delete", "metrics"}),
    ],
)
async def test_a_key_can_do_what_its_scope_says_and_no_more(
    scope: str, allowed: set[str], guarded: Served, path: Path
) -> None:
    header = add_key(path, scope)  # type: ignore[arg-type]  # one of the scopes
    http = fresh(guarded).http
    answers = {
        "classify": await http.post("/v1/classify", params=LABELS, content=photo(), headers={**header, **PNG}),
        "upload": await http.post("/v1/label-sets", json={"classes": ["a", "b"], "name": "n"}, headers=header),
        "show": await http.get("/v1/label-sets", headers=header),
        "delete": await http.delete("/v1/label-sets/n", headers=header),
        "metrics": await http.get("/metrics", headers=header),
    }
    refused = {name for name, answer in answers.items() if answer.status_code == 403}
    assert refused == set(answers) - allowed
    assert all(answers[name].status_code < 300 or name == "delete" for name in allowed)


def test_every_route_that_is_not_listed_is_closed(tmp_path: Path) -> None:
    assert needed_scopes("GET", "/v1/anything") == ADMIN
    assert needed_scopes("POST", "/livez") == ADMIN
    assert needed_scopes("POST", "/metrics") == ADMIN
    assert needed_scopes("GET", "/v1/classify/../metrics") == ADMIN
    assert needed_scopes("DELETE", "/v1/label-sets/x/evaluate") == {"label-sets"} | {"classify"}


async def test_documented_routes_of_the_api_have_a_rule_of_their_own(guarded: Served) -> None:
    paths = guarded.app.openapi()["paths"]
    assert "/v1/classify" in paths
    for path, operations in paths.items():
        for method in operations:
            assert needed_scopes(method.upper(), path.replace("{", "").replace("}", "")) != ADMIN, (method, path)


async def test_a_refusal_reads_no_body(guarded: Served) -> None:
    answer = await guarded.http.post("/v1/classify", content=bytes(80 * 1024 * 1024), headers=PNG)
    assert answer.status_code == 401  # and not 413: the size was never looked at


async def test_quotas_are_told_and_kept(guarded: Served, path: Path) -> None:
    header = add_key(path, "classify", images_per_minute=3)
    http = fresh(guarded).http
    for left in (2, 1, 0):
        answer = await http.post("/v1/classify", params=LABELS, content=photo(), headers={**header, **PNG})
        assert answer.status_code == 200
        assert answer.headers["ratelimit-policy"] == '"images";q=3;w=60'
        assert answer.headers["ratelimit"].startswith(f'"images";r={left};t=')
    late = await http.post("/v1/classify", params=LABELS, content=photo(), headers={**header, **PNG})
    assert (late.status_code, late.json()["type"], late.json()["limit"]) == (429, "/problems/rate-exceeded", "images")
    assert 0 < int(late.headers["retry-after"]) <= 20
    assert guarded.value("selftpt_refused_total", reason="rate_images") == 1


async def test_the_work_of_adaptations_has_a_quota_of_its_own(guarded: Served, path: Path) -> None:
    header = add_key(path, "label-sets", class_steps_per_minute=4)
    http = fresh(guarded).http
    first = {"classes": ["a", "b"], "adapter": "zero-shot"}
    assert (await http.post("/v1/label-sets", json=first, headers=header)).status_code == 202
    assert (await http.post("/v1/label-sets", json=first, headers=header)).status_code == 200  # known: costs nothing
    more = {"classes": ["c", "d", "e"], "adapter": "zero-shot"}
    late = await http.post("/v1/label-sets", json=more, headers=header)
    assert (late.status_code, late.json()["limit"]) == (429, "class-steps")
    assert len((await http.get("/v1/label-sets", headers=header)).json()["label_sets"]) == 1


async def test_other_keys_are_not_touched_by_a_used_up_one(guarded: Served, path: Path) -> None:
    small, large = add_key(path, "classify", images_per_minute=1), add_key(path, "classify", images_per_minute=1)
    http = fresh(guarded).http
    for header in (small, small, large):
        answer = await http.post("/v1/classify", params=LABELS, content=photo(), headers={**header, **PNG})
    assert answer.status_code == 200


async def test_the_audit_log_says_who_did_what_and_holds_no_secret(guarded: Served, path: Path) -> None:
    header = add_key(path, "label-sets", tenant="acme")
    http, lines = fresh(guarded).http, io.StringIO()
    handler, log = logging.StreamHandler(lines), logging.getLogger("selftpt.audit")
    handler.setFormatter(logging.Formatter('{"what": "%(message)s", "key": "%(key)s", "status": %(status)d}'))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        await http.post("/v1/label-sets", json={"classes": ["a", "b"]}, headers=header)
        await http.get("/metrics", headers=header)
        await http.get("/v1/limits", headers={"Authorization": "Bearer stpt_000000000000_" + "A" * 43})
    finally:
        log.removeHandler(handler)
    written = [json.loads(line) for line in lines.getvalue().splitlines()]
    one = id_of(header)
    assert written == [
        {"what": "POST /v1/label-sets", "key": one, "status": 202},
        {"what": "GET /metrics", "key": one, "status": 403},
        {"what": "GET /v1/limits", "key": "unknown", "status": 401},
    ]


async def test_without_a_keys_file_everybody_is_let_in(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as one:
        assert (await one.http.get("/metrics")).status_code == 200
        assert (await one.http.get("/v1/label-sets", headers={"Authorization": "Bearer x"})).status_code == 200
