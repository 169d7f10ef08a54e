"""POST /v1/classify over ASGI: three body forms, one answer; errors stay where they belong."""

from __future__ import annotations

import asyncio
import base64

import pytest

from adapters.clip import Backbone
from tests.service.fakes import soon
from tests.service.served import photo, served

PNG = {"Content-Type": "image/png"}
LABELS = ["cat", "dog", "rocket"]


async def test_the_three_body_forms_give_the_same_predictions(tiny_backbone: Backbone) -> None:
    text = base64.b64encode(photo()).decode()
    async with served(tiny_backbone) as site:
        raw = await site.http.post("/v1/classify", params={"labels": LABELS}, content=photo(), headers=PNG)
        form = await site.http.post("/v1/classify", data={"labels": LABELS}, files={"images": ("a.png", photo())})
        body = {"labels": LABELS, "images": [text, f"data:image/png;base64,{text}"]}
        json = await site.http.post("/v1/classify", json=body)
    expected = raw.json()["results"][0]["predictions"]
    assert [one["label"] for one in expected] == sorted(LABELS, key=[one["label"] for one in expected].index)
    assert sum(one["score"] for one in expected) == pytest.approx(1)
    assert form.json()["results"] == [{"filename": "a.png", "predictions": expected}]
    for result in json.json()["results"]:
        scores = [one["score"] for one in result["predictions"]]
        assert scores == pytest.approx([one["score"] for one in expected], rel=1e-5)


async def test_labels_may_be_one_text_with_commas(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        one = await site.http.post("/v1/classify?labels=cat,dog,rocket", content=photo(), headers=PNG)
        form = await site.http.post("/v1/classify", data={"labels": "cat, dog, rocket"}, files={"image": photo()})
        many = await site.http.post("/v1/classify?labels=cat&labels=dog, wet", content=photo(), headers=PNG)
    assert one.json()["label_set"] == form.json()["label_set"]
    assert {p["label"] for p in many.json()["results"][0]["predictions"]} == {"cat", "dog, wet"}


async def test_inline_labels_may_bring_their_templates(tiny_backbone: Backbone) -> None:
    params: dict[str, str | list[str]] = {"labels": "cat,dog", "adapter": "zero-shot"}
    async with served(tiny_backbone) as site:
        site.slow.go.set()
        plain = await site.http.post("/v1/classify", params=params, content=photo(), headers=PNG)
        own = params | {"templates": ["a sketch of a {}.", "some {}"]}
        drawn = await site.http.post("/v1/classify", params=own, content=photo(), headers=PNG)
        form = await site.http.post("/v1/classify", data=own, files={"images": photo()})
        made = (await site.http.post("/v1/label-sets", json={"classes": ["cat", "dog"]})).json()["id"]
        own = {"label_set": made, "templates": "a {}"}
        refused = await site.http.post("/v1/classify", params=own, content=photo(), headers=PNG)
    assert plain.json()["label_set"] != drawn.json()["label_set"] == form.json()["label_set"]
    assert (refused.status_code, refused.json()["field"]) == (422, "templates")


async def test_answers_say_whether_they_are_adapted(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        url = "/v1/classify?labels=cat,dog"
        first = (await site.http.post(url, content=photo(), headers=PNG)).json()
        assert (first["adapted"], first["adapter"], first["source_prompts"]) == (False, "self-tpt", "none")
        assert first["status"] in {"queued", "adapting"}
        site.slow.go.set()
        later = await site.http.post(url, content=photo(), headers={**PNG, "Prefer": "wait=5"})
        assert later.json()["adapted"] is True
        assert later.headers["Preference-Applied"] == "wait=5"
        plain = await site.http.post(f"{url}&adapter=zero-shot", content=photo(), headers=PNG)
        assert (plain.json()["adapted"], plain.json()["adapter"]) == (False, "zero-shot")


async def test_another_method_for_one_request_leaves_the_label_set_its_id(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        site.slow.go.set()
        made = (await site.http.post("/v1/label-sets", json={"classes": ["cat", "dog"]})).json()
        url = f"/v1/classify?label_set={made['id']}&adapter=zero-shot"
        plain = (await site.http.post(url, content=photo(), headers=PNG)).json()
    assert (plain["label_set"], plain["adapter"]) == (made["id"], "zero-shot")


async def test_64_first_requests_are_answered_at_once_and_adapt_once(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        calls = [site.http.post("/v1/classify?labels=cat,dog", content=photo(), headers=PNG) for _ in range(64)]
        answers = await asyncio.gather(*calls)
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["adapted"] for answer in answers} == {False}
        site.slow.go.set()
        await site.http.post("/v1/classify?labels=cat,dog", content=photo(), headers={**PNG, "Prefer": "wait=5"})
        assert site.value("selftpt_adaptations_total", adapter="self-tpt", outcome="ready") == 1
        assert site.value("selftpt_batch_size_count") < 60


async def test_one_bad_image_of_many_fails_alone(tiny_backbone: Backbone) -> None:
    files = [("images", ("good.png", photo())), ("images", ("bad.png", photo()[:50])), ("images", ("c.txt", b"text"))]
    async with served(tiny_backbone) as site:
        answer = await site.http.post("/v1/classify", data={"labels": LABELS}, files=files)
    good, bad, text = answer.json()["results"]
    assert answer.status_code == 200
    assert "predictions" in good
    assert (bad["filename"], bad["error"]["status"], bad["error"]["type"]) == (
        "bad.png", 422, "/problems/undecodable-image"
    )  # fmt: skip
    assert text["error"]["status"] == 415


async def test_the_error_of_the_only_image_is_the_answer(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, max_pixels=1000) as site:
        large = await site.http.post("/v1/classify?labels=a,b", content=photo(size=(90, 90)), headers=PNG)
        base64ed = await site.http.post("/v1/classify", json={"labels": LABELS, "images": ["%%%"]})
    assert (large.status_code, large.json()["limit"], large.json()["actual"]) == (413, "max_pixels", 8100)
    assert base64ed.status_code == 422


async def test_top_k_scores_and_rejection(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        url = "/v1/classify?labels=cat,dog,rocket&top_k=2&scores=independent&reject_below=1.0"
        answer = await site.http.post(url, content=photo(), headers=PNG)
        (result,) = answer.json()["results"]
    assert len(result["predictions"]) == 2
    assert result["rejected"] is True
    assert all(0 < one["score"] < 1 for one in result["predictions"])


async def test_timings_are_in_the_header_and_the_body(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone) as site:
        answer = await site.http.post("/v1/classify?labels=a,b", content=photo(), headers=PNG)
        stages = {"receive", "decode", "queue", "forward", "head", "total"}
        assert stages <= answer.json()["timings_ms"].keys()
        assert stages <= {part.split(";")[0] for part in answer.headers["Server-Timing"].split(", ")}
        assert site.value("selftpt_stage_duration_seconds_count", stage="forward") == 1


@pytest.mark.parametrize(
    ("request_parts", "status", "field"),
    [
        ({"content": photo(), "headers": PNG}, 422, "labels"),
        ({"content": photo(), "headers": PNG, "params": {"labels": "a", "label_set": "b"}}, 422, "labels"),
        ({"content": photo(), "headers": PNG, "params": {"label_set": "nobody"}}, 404, None),
        ({"content": photo(), "headers": PNG, "params": {"labels": "a,A"}}, 422, "classes[1].name"),
        ({"content": photo(), "headers": PNG, "params": {"labels": "a,b", "adapter": "x"}}, 422, "adapter"),
        ({"content": photo(), "headers": PNG, "params": {"labels": "a,b", "top_k": 0}}, 422, "top_k"),
        ({"content": photo(), "headers": PNG, "params": {"labels": "a,b", "scores": "best"}}, 422, "scores"),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}, "params": {"labels": "a,b"}}, 415, None),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, None),
        ({"json": {"labels": ["a"], "images": [], "x": 1}}, 422, "images"),
        ({"data": {"labels": "a,b", "top": "1"}, "files": {"images": photo()}}, 422, "top"),
        ({"data": {"labels": "a,b"}, "files": {"picture": photo()}}, 422, "picture"),
        ({"data": {"labels": "a,b"}, "files": [("images", photo())] * 4}, 413, "images"),
        ({"content": b"--", "headers": {"Content-Type": "multipart/form-data"}}, 400, None),
    ],
)
async def test_bad_requests_are_problem_documents_that_name_the_field(
    request_parts: dict[str, object], status: int, field: str | None, tiny_backbone: Backbone
) -> None:
    async with served(tiny_backbone, max_images=3) as site:
        answer = await site.http.post("/v1/classify", **request_parts)  # type: ignore[arg-type]  # parts of any kind
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json().get("field") == field
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


async def test_bodies_are_bounded_announced_or_not(tiny_backbone: Backbone) -> None:
    async def pieces() -> object:
        for _ in range(9):
            yield bytes(1000)

    async with served(tiny_backbone, max_body_bytes=4096, max_image_bytes=2048) as site:
        for content in (bytes(9000), pieces()):
            answer = await site.http.post("/v1/classify?labels=a,b", content=content, headers=PNG)  # type: ignore[arg-type]  # httpx takes both
            assert (answer.status_code, answer.json()["limit"]) == (413, "max_body_bytes")
        image = await site.http.post("/v1/classify?labels=a,b", content=bytes(3000), headers=PNG)
        assert (image.status_code, image.json()["limit"]) == (413, "max_image_bytes")
        assert site.value("selftpt_refused_total", reason="max_body_bytes") == 2


async def test_too_many_requests_at_once_are_told_when_to_come_back(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, max_in_flight=4) as site:
        wait = {**PNG, "Prefer": "wait=5"}
        calls = [site.http.post("/v1/classify?labels=a,b", content=photo(), headers=wait) for _ in range(6)]
        running = asyncio.gather(*calls)
        await soon(lambda: site.value("selftpt_refused_total", reason="in_flight") == 2)
        site.slow.go.set()
        answers = await running
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 4 + [429] * 2
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) == refused.json()["retry_after"] >= 1


async def test_what_takes_too_long_is_a_504(tiny_backbone: Backbone) -> None:
    async with served(tiny_backbone, request_timeout=0.001) as site:
        answer = await site.http.post("/v1/classify?labels=a,b", content=photo(), headers=PNG)
    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline-exceeded")


async def test_methods_that_look_at_many_views_serve_too_but_have_no_independent_scores(
    tiny_backbone: Backbone,
) -> None:
    async with served(tiny_backbone, slow=False) as site:
        body = {"classes": ["cat", "dog"], "adapter": "tpt", "options": {"mode": "vote", "views": 6}, "name": "votes"}
        assert (await site.http.post("/v1/label-sets", json=body)).status_code == 202
        png = {"Content-Type": "image/png", "Prefer": "wait=20"}
        url = "/v1/classify?label_set=votes"
        first, again = [(await site.http.post(url, content=photo(), headers=png)).json() for _ in range(2)]
        assert (first["served_by"], first["results"]) == ("tpt", again["results"])
        refused = await site.http.post(f"{url}&scores=independent", content=photo(), headers=png)
        assert (refused.status_code, refused.json()["field"]) == (422, "scores")
