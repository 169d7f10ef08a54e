"""Under overload a request is refused by its head: its body is not read, no route is run, and its caller is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from adapters.clip import Backbone
from service.compute.backlog import Pace
from tests.service.served import Served, photo, served

PNG = {"content-type": "image/png"}
CLASSIFY = "/v1/classify?labels=a,b"


@contextmanager
def busy(site: Served, images: int) -> Iterator[None]:
    """So many images of somebody else's are under way, of which ten a second get done."""
    backlog = site.runtime.backlog
    backlog.pace = Pace()
    backlog.pace.guess(0.1)
    with backlog.claim(images, "local"):
        yield


async def never_read() -> AsyncIterator[bytes]:
    yield b""
    raise AssertionError("the body was read")


@pytest.mark.parametrize(("path", "named"), [(CLASSIFY, False), ("/v2/models/x/infer", True), ("/models/things", True)])
async def test_what_would_come_too_late_is_refused_before_its_body_is_read(
    tiny_backbone: Backbone, path: str, named: bool
) -> None:
    async with served(tiny_backbone) as site:
        with busy(site, 100):
            headers = {**PNG, "X-Request-Timeout-Ms": "5000", "content-length": "70000"}
            answer = await site.http.post(path, content=never_read(), headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (429, "/problems/overloaded")
        assert int(answer.headers["Retry-After"]) == answer.json()["retry_after"] == 8
        assert ("error" in answer.json()) == named
        assert site.value("selftpt_refused_total", reason="deadline") == 1


async def test_the_time_is_the_callers_own_or_the_settings_and_waiting_for_adaptation_adds_to_it(
    tiny_backbone: Backbone,
) -> None:
    async with served(tiny_backbone, slow=False, request_timeout=10) as site:
        statuses = []
        for headers in ({}, {"Prefer": "wait=30"}, {"Prefer": "wait=30", "X-Request-Timeout-Ms": "10000"}):
            with busy(site, 100):
                answer = await site.http.post(CLASSIFY, content=photo(), headers={**PNG, **headers})
            statuses.append(answer.status_code)
    assert statuses == [429, 200, 429]


async def test_many_images_in_a_body_are_refused_before_they_are_decoded_where_one_would_do(
    tiny_backbone: Backbone,
) -> None:
    async with served(tiny_backbone, slow=False, request_timeout=10) as site:
        files = [("images", (f"{number}.png", photo(colour="red"), "image/png")) for number in range(30)]
        with busy(site, 30):
            many = await site.http.post("/v1/classify", files=files, data={"labels": ["a", "b"]})
            one = await site.http.post(CLASSIFY, content=photo(), headers=PNG)
        assert (many.status_code, one.status_code) == (429, 200)
        assert site.value("selftpt_stage_duration_seconds_count", stage="decode") == 1


async def test_other_requests_pass_by(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, request_timeout=1) as site:
        with busy(site, 1000):
            assert (await site.http.get("/v1/limits")).status_code == 200
            assert (await site.http.post("/v1/label-sets", json={"classes": ["a", "b"]})).is_success
            odd = {**PNG, "X-Request-Timeout-Ms": "soon"}
            assert (await site.http.post(CLASSIFY, content=photo(), headers=odd)).status_code == 429
        assert (await site.http.post(CLASSIFY, content=photo(), headers=odd)).status_code == 422
