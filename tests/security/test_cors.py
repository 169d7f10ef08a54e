"""What pages of a listed site may send and read, held against what the service itself reads and sends."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.clip import Backbone
from service.app import create_app
from service.security.headers import ALWAYS
from service.settings import Settings
from tests.security.keys import add_key
from tests.service.served import Served, photo, served

SERVICE = Path(__file__).resolve().parents[2] / "service"
SITE = "https://app.example"
ELSEWHERE = {"client", "commands", "cluster"}
"""Packages that speak HTTP as clients, or not at all."""

BROWSERS_OWN = {"accept", "content-encoding", "content-length", "expect", "host", "if-none-match", "origin",
                "sec-fetch-site", "transfer-encoding"}  # fmt: skip
"""Fields that a browser sets itself or lets every page set."""

SAFE = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma"}
"""Fields that every page may read (the CORS-safelisted response-header names of the Fetch standard)."""

NOT_FOR_PAGES = {"content-security-policy", "connection", "etag", "vary", *(name.lower() for name in ALWAYS)}
"""Fields that are meant for the browser."""


def parts() -> Iterator[ast.AST]:
    for path in SERVICE.rglob("*.py"):
        if path.relative_to(SERVICE).parts[0] not in ELSEWHERE:
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def of_headers(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] == "headers"


def literal(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value.lower()


def read_fields() -> set[str]:
    """Named in `headers.get("...")` somewhere in the service."""
    calls = [node for node in parts() if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    asked = [call for call in calls if call.func.attr == "get" and of_headers(call.func.value)]  # type: ignore[attr-defined]  # as was just checked
    return {name for call in asked if call.args for name in literal(call.args[0])}


def set_fields() -> set[str]:
    """Named in `headers["..."] = ...` somewhere in the service."""
    places = [node for node in parts() if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)]
    return {name for place in places if of_headers(place.value) for name in literal(place.slice)}


def declared_fields(backbone: Backbone) -> set[str]:
    """Header parameters of the contract."""
    paths = create_app(Settings(), backbone=backbone).openapi()["paths"].values()
    given = [one for path in paths for operation in path.values() for one in operation.get("parameters", [])]
    return {one["name"].lower() for one in given if one["in"] == "header"}


def listed(answer: httpx.Response, field: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[field].split(",")}


async def asked_to_send(site: Served, field: str) -> httpx.Response:
    head = {"Origin": SITE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": field}
    return await site.http.options("/v1/classify", headers=head)


async def test_a_page_may_send_every_field_that_the_service_reads(tiny_backbone: Backbone) -> None:
    read = (read_fields() | declared_fields(tiny_backbone)) - BROWSERS_OWN
    assert {"authorization", "prefer", "x-request-id", "inference-header-content-length", "traceparent"} <= read
    async with served(tiny_backbone, cors_origins=SITE) as site:
        refused = [field for field in sorted(read) if (await asked_to_send(site, field)).status_code != 200]
        assert refused == []
        assert (await asked_to_send(site, "x-other")).status_code == 400


async def answers(site: Served, key: dict[str, str]) -> list[httpx.Response]:
    """Of every kind that has fields of its own."""
    http, head = site.http, {**key, "Origin": SITE}
    made = await http.post("/v1/label-sets", json={"classes": ["a", "b"], "name": "ab"}, headers=head)
    kept = await http.put("/v1/label-sets/ab/support/a", files={"images": ("a.png", photo())}, headers=head)
    digest = kept.json()["images"][0]["digest"]
    head_json = json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES",
                                        "parameters": {"binary_data_size": len(photo()) + 4}}],
                            "parameters": {"binary_data_output": True}}).encode()  # fmt: skip
    tensor = len(photo()).to_bytes(4, "little") + photo()
    binary = {**head, "Inference-Header-Content-Length": str(len(head_json)), "Prefer": "wait=1"}
    return [
        made,
        await http.get(f"/v1/label-sets/ab/support-images/{digest}", headers=head),
        await http.post("/v1/classify?label_set=ab", content=photo(), headers={**head, "Content-Type": "image/png"}),
        await http.post("/v2/models/ab/infer", content=head_json + tensor, headers=binary),
        await http.get("/v1/limits", headers={"Origin": SITE}),
        await http.delete("/v1/label-sets", headers=head),
        await http.put("/v1/label-sets/ab/support/a", files={"images": ("a.png", photo())}, headers=head),
    ]


async def test_a_page_may_read_every_field_that_is_meant_for_it(tiny_backbone: Backbone, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "classify", "label-sets", images_per_minute=3)
    settings = {"cors_origins": SITE, "api_keys_file": tmp_path / "keys.json", "adapter": "zero-shot"}
    async with served(tiny_backbone, **settings) as site:
        found = await answers(site, key)
        site.runtime.drain()
    assert [one.status_code for one in found] == [202, 200, 200, 200, 401, 405, 429]
    sent = {name.lower() for one in found for name in one.headers if not name.lower().startswith("access-control-")}
    assert {"retry-after", "ratelimit", "server-timing", "x-request-id", "x-adapted"} <= sent
    for_pages = (sent | set_fields()) - SAFE - NOT_FOR_PAGES
    assert for_pages - listed(found[0], "access-control-expose-headers") == set()


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_other_sites_are_told_of_no_field(origin: str, tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, cors_origins=SITE) as site:
        answer = await site.http.get("/v1/limits", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers
