"""The access log and the trace of a request say whose key asked: its id and tenant, never the key."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adapters.clip import Backbone
from service.telemetry.logging import JsonFormatter
from tests.security.keys import add_key, id_of
from tests.service.served import served
from tests.service.test_tracing import named, tracing_to


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the access log says, as it is written in earnest."""
    found: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: found.append(JsonFormatter().format(record))  # type: ignore[method-assign]  # a sink
    log = logging.getLogger("selftpt.access")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.removeHandler(handler)
    log.setLevel(level)


async def test_a_line_of_the_access_log_names_key_and_tenant(
    lines: list[str], tiny_backbone: Backbone, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "classify", tenant="acme")
    async with served(tiny_backbone, api_keys_file=tmp_path / "keys.json") as site:
        await site.http.get("/v1/limits", headers=key)
        await site.http.post("/v1/label-sets", json={"classes": ["a"]}, headers=key)
    told = [json.loads(line) for line in lines]
    assert [(one["status"], one["key"], one["tenant"]) for one in told] == [
        (200, id_of(key), "acme"), (403, id_of(key), "acme"),
    ]  # fmt: skip
    assert key["Authorization"].rpartition("_")[2] not in "".join(lines)


async def test_nobody_is_named_who_has_no_key(lines: list[str], tiny_backbone: Backbone, tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "classify")
    async with served(tiny_backbone, api_keys_file=tmp_path / "keys.json") as site:
        for header in ({}, {"Authorization": "Bearer stpt_000000000000_" + "x" * 43}):
            await site.http.get("/v1/limits", headers=header)
        await site.http.get("/")
    async with served(tiny_backbone) as site:
        await site.http.get("/v1/limits")
    told = [json.loads(line) for line in lines]
    assert [one["status"] for one in told] == [401, 401, 200, 200]
    assert all(one.keys().isdisjoint({"key", "tenant"}) for one in told)


async def test_the_span_of_a_request_carries_them(tiny_backbone: Backbone, tmp_path: Path) -> None:
    spans = InMemorySpanExporter()
    key = add_key(tmp_path / "keys.json", "classify", tenant="acme")
    async with served(tiny_backbone, api_keys_file=tmp_path / "keys.json", tracing=tracing_to(spans)) as site:
        await site.http.get("/v1/limits", headers=key)
    (request,) = named(spans, "GET /v1/limits")
    assert request.attributes is not None
    assert (request.attributes["selftpt.key"], request.attributes["selftpt.tenant"]) == (id_of(key), "acme")
