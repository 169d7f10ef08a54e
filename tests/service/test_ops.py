"""Health, metrics, and what the service says of itself."""

from __future__ import annotations

import pytest

from adapters.clip import Backbone
from service.errors import error_types
from tests.service.served import photo, served

PNG = {"Content-Type": "image/png"}


async def test_ready_means_that_a_batch_went_through_the_device(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        ready = await site.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert {check["name"] for check in ready.json()["checks"]} == {"accepting", "device", "dict"}
        assert site.value("selftpt_ready") == 1


async def test_without_the_device_the_service_lives_but_is_not_ready(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await site.runtime.core.engine.stop()
        assert (await site.http.get("/livez")).json() == {"status": "alive"}
        assert (await site.http.get("/readyz")).status_code == 503
        answer = await site.http.post("/v1/classify?labels=a,b", content=photo(), headers=PNG)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/shutting-down")


async def test_a_draining_service_is_not_ready(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.runtime.drain()
        assert (await site.http.get("/readyz")).status_code == 503


async def test_before_the_model_is_loaded_callers_are_told_to_come_back(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        core, site.runtime._core = site.runtime._core, None
        answer = await site.http.get("/v1/models")
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-ready")
        assert "Retry-After" in answer.headers
        assert (await site.http.get("/readyz")).status_code == 503
        site.runtime._core = core


async def test_models_adapters_and_limits_are_listed(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, max_images=7) as site:
        (model,) = (await site.http.get("/v1/models")).json()["models"]
        methods = (await site.http.get("/v1/adapters")).json()
        limits = (await site.http.get("/v1/limits")).json()
    assert (model["name"], model["embed_dim"], model["image_size"]) == ("tiny", 64, 32)
    assert {"zero-shot", "self-tpt"} <= {method["name"] for method in methods["adapters"]}
    assert limits["limits"]["max_images"] == 7


async def test_metrics_count_requests_by_route_template(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        await site.http.get("/v1/label-sets/nobody")
        await site.http.get("/no/such/page")
        text = (await site.http.get("/metrics")).text
    assert 'selftpt_request_duration_seconds_count{route="/v1/label-sets/{label_set}",status="404"} 1.0' in text
    assert 'selftpt_request_duration_seconds_count{route="unmatched",status="404"} 1.0' in text
    assert "nobody" not in text
    assert "selftpt_build_info{" in text


async def test_every_metric_has_help_and_the_projects_prefix(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        families = list(site.runtime.metrics.registry.collect())
    own = [family for family in families if not family.name.startswith("process_")]
    assert all(family.name.startswith("selftpt_") and family.documentation for family in own)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("PUT", "/livez", 405), ("GET", "/v1/classify", 405)]
)
async def test_unknown_routes_and_methods_are_problem_documents(
    method: str, path: str, status: int, tiny_backbone: Backbone
) -> None:
    async with served(tiny_backbone) as site:
        answer = await site.http.request(method, path)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_each_problem_type_is_explained_where_its_uri_points(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        for kind in error_types():
            answer = await site.http.get(f"/problems/{kind.slug}")
            assert answer.json()["status"] == kind.status


async def test_request_ids_are_echoed_when_sound_and_made_when_not(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        given = await site.http.get("/livez", headers={"X-Request-Id": "abc-1"})
        forged = await site.http.get("/livez", headers={"X-Request-Id": "two words"})
    assert given.headers["X-Request-Id"] == "abc-1"
    assert len(forged.headers["X-Request-Id"]) == 32


async def test_an_unexpected_error_is_a_500_with_its_request_id(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:

        @site.app.get("/broken")
        async def broken() -> None:
            raise ZeroDivisionError

        answer = await site.http.get("/broken")
        assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal-error")
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
        assert site.value("selftpt_request_duration_seconds_count", route="/broken", status="500") == 1


async def test_the_api_page_is_served(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        assert "POST /v1/classify" in (await site.http.get("/docs")).text
        assert (await site.http.get("/openapi.json")).json()["info"]["title"] == "self-tpt-service"
