"""The Python client against a scripted transport: what is sent, when it tries again, and what failures become."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.client import AsyncClient, Client, ServiceProblem

PHOTO = Path(__file__).resolve().parents[2] / "examples/images/cat.jpg"
ANSWER = {
    "results": [{"predictions": [{"label": "cat", "score": 0.9, "cosine": 0.3}]}],
    "adapted": True,
    "adapter": "self-tpt",
    "served_by": "self-tpt",
    "label_set": "ab",
    "status": "ready",
    "source_prompts": "none",
    "backbone": "bundled",
    "timings_ms": {"decode": 1.0},
}
SUMMARY = {
    "id": "ab",
    "name": None,
    "status": "ready",
    "progress": 1.0,
    "adapter": "self-tpt",
    "class_count": 2,
    "created": 1.0,
}
LABEL_SET = SUMMARY | {
    "options": {},
    "classes": ["cat", "dog"],
    "templates": [],
    "seconds": 0.5,
    "bytes": 10,
    "fingerprint": "f",
    "version": "v",
    "info": {},
}
BUSY = {"type": "/problems/overloaded", "title": "Too much is waiting", "status": 429, "detail": "", "retry_after": 7}


class Script:
    """A service that answers from a list and remembers what it was asked and how long the client slept."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self) -> Client:
        return Client("http://service", transport=httpx.MockTransport(self.handle), sleep=self.slept.append)

    def async_client(self) -> AsyncClient:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        return AsyncClient("http://service", transport=httpx.MockTransport(self.handle), sleep=sleep)


def ok(body: object = ANSWER, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def busy(retry_after: str = "7", status: int = 429) -> httpx.Response:
    return httpx.Response(status, json=BUSY, headers={"Retry-After": retry_after})


def test_one_photo_of_a_label_set_goes_raw() -> None:
    script = Script(ok())
    with script.client() as client:
        answer = client.classify(PHOTO, label_set="pets", top_k=2)
    sent = script.requests[0]
    assert [one.label for one in answer.results[0].predictions or []] == ["cat"]
    assert sent.headers["content-type"] == "image/jpeg"
    assert dict(sent.url.params) == {"top_k": "2", "scores": "softmax", "label_set": "pets"}
    assert sent.content == PHOTO.read_bytes()


def test_inline_labels_go_as_fields_beside_the_images() -> None:
    script = Script(ok())
    with script.client() as client:
        client.classify(PHOTO, PHOTO.read_bytes(), labels=["cat", "dog, wet"], wait=5)
    body = script.requests[0].content
    assert body.count(b'name="images"') == 2
    assert body.count(b'name="labels"') == 2
    assert b"dog, wet" in body
    assert script.requests[0].headers["prefer"] == "wait=5"


def test_a_pillow_image_is_sent_without_loss() -> None:
    script = Script(ok())
    with script.client() as client:
        client.classify(Image.new("RGB", (4, 3), "red"), label_set="x")
    assert script.requests[0].headers["content-type"] == "image/png"


def test_labels_and_label_set_exclude_each_other() -> None:
    with Script().client() as client, pytest.raises(ValueError, match="either labels or label_set"):
        client.classify(PHOTO, labels=["a"], label_set="b")


def test_an_overloaded_service_is_asked_again_when_it_said() -> None:
    script = Script(busy("7"), busy("2", 503), ok())
    with script.client() as client:
        assert client.classify(PHOTO, label_set="x").adapted
    assert script.slept == [7.0, 2.0]
    assert script.requests[0].content == script.requests[2].content


def test_without_advice_pauses_double() -> None:
    script = Script(httpx.ConnectError("down"), httpx.Response(503), ok(LABEL_SET))
    with script.client() as client:
        client.label_set("pets")
    assert script.slept == [0.25, 0.5]


def test_patience_ends_with_the_problem() -> None:
    script = Script(*[busy() for _ in range(4)])
    with script.client() as client, pytest.raises(ServiceProblem) as caught:
        client.label_set("pets")
    assert caught.value.status == 429
    assert caught.value.type == "overloaded"
    assert caught.value.problem.model_extra == {"retry_after": 7}


def test_other_errors_are_not_tried_again() -> None:
    missing = {"type": "/problems/not-found", "title": "Not found", "status": 404, "detail": "no label set 'x'"}
    script = Script(ok(missing, 404))
    with script.client() as client, pytest.raises(ServiceProblem, match="no label set 'x'"):
        client.label_set("x")
    assert script.slept == []


def test_an_error_page_of_a_proxy_is_a_problem_too() -> None:
    script = Script(httpx.Response(502, text="<html>bad gateway</html>"))
    with script.client() as client, pytest.raises(ServiceProblem, match="bad gateway"):
        client.delete_label_set("x")


def test_names_are_quoted_in_paths() -> None:
    script = Script(ok(LABEL_SET))
    with script.client() as client:
        client.label_set("a/b?c")
    assert script.requests[0].url.raw_path == b"/v1/label-sets/a%2Fb%3Fc"


def test_all_pages_of_label_sets_are_read() -> None:
    first = {"label_sets": [SUMMARY], "next": "ab"}
    script = Script(ok(first), ok({"label_sets": [SUMMARY | {"id": "cd"}], "next": None}))
    with script.client() as client:
        assert [one.id for one in client.label_sets()] == ["ab", "cd"]
    assert script.requests[1].url.params["after"] == "ab"


def test_events_become_status_and_progress() -> None:
    lines = [
        ": hello\n",
        'event: progress\ndata: {"status": "adapting", "progress": 0.5}\n',
        'event: ready\ndata: {"status": "ready", "progress": 1}\n\n',
    ]
    stream = "\n".join(lines)
    script = Script(httpx.Response(200, text=stream, headers={"Content-Type": "text/event-stream"}))
    with script.client() as client:
        assert list(client.watch_label_set("ab")) == [("adapting", 0.5), ("ready", 1.0)]


def test_a_label_set_is_created_with_what_was_given() -> None:
    script = Script(ok(LABEL_SET, 202))
    with script.client() as client:
        client.create_label_set(["cat", "dog"], name="pets", options={"steps": 3}, wait=2)
    body = json.loads(script.requests[0].content)
    assert body == {
        "classes": ["cat", "dog"],
        "name": "pets",
        "adapter": None,
        "templates": [],
        "options": {"steps": 3},
    }


async def test_the_asynchronous_client_does_the_same() -> None:
    script = Script(busy("1"), ok(), ok(LABEL_SET), ok({"label_sets": [SUMMARY], "next": None}))
    async with script.async_client() as client:
        assert (await client.classify(PHOTO, labels=["cat"])).adapted
        assert (await client.create_label_set(["cat"])).id == "ab"
        assert [one.id async for one in client.label_sets()] == ["ab"]
    assert script.slept == [1.0]


@pytest.mark.parametrize("name", sorted(name for name in vars(Client) if not name.startswith("_")))
def test_both_clients_take_the_same_arguments(name: str) -> None:
    def parameters(method: Callable[..., object]) -> list[str]:
        return [str(parameter) for parameter in inspect.signature(method).parameters.values()]

    assert parameters(getattr(Client, name)) == parameters(getattr(AsyncClient, name))
    assert (getattr(Client, name).__doc__ or "") == (getattr(AsyncClient, name).__doc__ or "")


SUPPORT = {"label": "a/b", "count": 1, "images": [{"digest": "d", "bytes": 3, "caption": "one"}]}


def test_support_images_go_to_the_path_of_their_class_with_their_captions() -> None:
    script = Script(ok(SUPPORT), ok({}, 204))
    with script.client() as client:
        found = client.put_support("pets", "a/b", b"\x89PNG", captions=["one"])
        client.delete_support("pets", "a/b")
    put, delete = script.requests
    assert (put.method, put.url.raw_path) == ("PUT", b"/v1/label-sets/pets/support/a%2Fb")
    assert b'["one"]' in put.content
    assert (delete.method, found.images[0].caption) == ("DELETE", "one")


def test_a_fit_says_what_it_wants_and_how_long_it_waits() -> None:
    script = Script(ok(LABEL_SET, 202), ok({}, 204))
    with script.client() as client:
        client.fit("pets", adapter="coop", options={"steps": 3}, deadline_seconds=60, wait=5)
        client.cancel_fit("pets")
    asked, cancelled = script.requests
    assert json.loads(asked.content) == {"adapter": "coop", "options": {"steps": 3}, "deadline_seconds": 60}
    assert (asked.url.path, asked.headers["Prefer"]) == ("/v1/label-sets/pets/fit", "wait=5")
    assert (cancelled.method, cancelled.url.path) == ("DELETE", "/v1/label-sets/pets/fit")


def test_labelled_images_carry_their_class_in_their_file_name() -> None:
    report = {"top1": 1.0, "ece": 0.1, "per_class": [], "confusion": None, "mistaken": []}
    answer = {
        "label_set": "ab", "adapter": "coop", "served_by": "coop", "adapted": True, "status": "ready", "images": 1,
        "failures": [], "served": report, "zero_shot": report,
    }  # fmt: skip
    script = Script(ok(answer), ok(LABEL_SET, 202))
    with script.client() as client:
        assert client.evaluate("pets", [("hot dog", PHOTO)]).served.top1 == 1.0
        client.add_classes("pets", ["bird"])
    assert b'filename="hot dog/cat.jpg"' in script.requests[0].content
    assert json.loads(script.requests[1].content) == {"classes": ["bird"]}
