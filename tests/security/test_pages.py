"""What browsers are told, which sites may use the API, and whose word about the caller's address counts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from adapters.clip import Backbone
from service.security.sites import host_of, is_loopback
from tests.service.served import Served, photo, served

SITE = "https://app.example"
CLASSES = {"classes": ["a", "b"], "adapter": "zero-shot"}


@pytest.fixture
async def service(tiny_backbone: Backbone) -> AsyncIterator[Served]:
    async with served(tiny_backbone, cors_origins=SITE, allowed_hosts="inside.example") as one:
        yield one


async def test_every_answer_carries_the_guarding_header_fields(service: Served) -> None:
    for path in ("/", "/docs", "/docs.css", "/livez", "/metrics", "/nothing", "/v1/limits", "/favicon.svg"):
        headers = (await service.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert "strict-transport-security" not in headers  # the proxy that speaks TLS sets it


async def test_pages_allow_nothing_from_elsewhere_and_nothing_inline(service: Served) -> None:
    for path in ("/", "/docs"):
        answer = await service.http.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith(("default-src 'self'", "default-src 'none'")), path
        assert "unsafe" not in policy
        assert "http" not in policy
        assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|style=", answer.text), path


async def test_answers_that_are_no_page_can_run_nothing(service: Served) -> None:
    answer = await service.http.get("/v1/limits")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


async def test_a_listed_site_may_use_the_api_and_read_its_header_fields(service: Served) -> None:
    asked = {"Origin": SITE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = await service.http.options("/v1/classify", headers=asked)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, SITE)
    sent = await service.http.post("/v1/label-sets", json=CLASSES, headers={"Origin": SITE})
    assert sent.status_code == 202
    assert "RateLimit" in sent.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in sent.headers


async def test_other_sites_may_not(service: Served) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    refused = await service.http.options("/v1/classify", headers=asked)
    assert "access-control-allow-origin" not in refused.headers
    read = await service.http.get("/v1/label-sets", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in read.headers  # the browser keeps it from the page


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://service.evil.example"},
        {"Origin": "http://service", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_page_of_another_site_changes_nothing(headers: dict[str, str], service: Served) -> None:
    """Such requests need no permission of CORS to be sent: a form or a plain fetch is enough."""
    sent = await service.http.post("/v1/label-sets", json=CLASSES, headers=headers)
    assert (sent.status_code, sent.json()["type"]) == (403, "/problems/forbidden")
    assert (await service.http.get("/v1/label-sets")).json()["label_sets"] == []


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://service"}, {"Origin": "x", "Sec-Fetch-Site": "same-origin"}]
)
async def test_the_own_page_and_programs_do(headers: dict[str, str], service: Served) -> None:
    sent = await service.http.post("/v1/label-sets", json=CLASSES, headers=headers)
    assert sent.status_code == 202


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:8000", 200), ("pc.localhost:1", 200),
        ("inside.example", 200), ("rebound.example:8000", 403), ("127.0.0.1.evil.example", 403), ("10.0.0.1", 403),
    ],
)  # fmt: skip
async def test_on_loopback_a_foreign_name_is_not_answered(name: str, status: int, service: Served) -> None:
    """A name that its owner makes point to 127.0.0.1 would let the owner's page read answers."""
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        assert (await http.get("/v1/limits", headers={"Host": name})).status_code == status


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.2", False), ("example.org", False), ("", False), ("127.0.0.1.example.org", False)],
)  # fmt: skip
def test_what_counts_as_this_machine(address: str, local: bool) -> None:
    assert is_loopback(address) is local


def test_host_names_lose_their_port() -> None:
    assert [host_of(one) for one in ("A:1", "[::1]:80", "a", "::1")] == ["a", "::1", "a", "::1"]


async def test_raw_images_are_read_whatever_the_browser_would_guess(service: Served) -> None:
    answer = await service.http.post(
        "/v1/classify", params={"labels": "a,b"}, content=photo(), headers={"Content-Type": "image/png"}
    )
    assert answer.headers["content-type"] == "application/json"
