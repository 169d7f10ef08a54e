"""Pixels as PNG, pauses as asked for, and which requests are sent again."""

from __future__ import annotations

import io
from email.utils import formatdate
from time import time

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import Client, ServiceProblem
from service.client.images import encoded
from service.client.retries import again, pause, retry_after
from tests.client.test_client import LABEL_SET, Script, ok

ANSWERED = [{"predictions": [{"label": "cat", "score": 0.9, "cosine": 0.3}]}]
BAD = {"type": "/problems/undecodable-image", "title": "Undecodable image", "status": 422, "detail": "cut short"}


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_an_array_of_pixels_is_sent_without_loss(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    name, data = encoded(pixels, 3)
    assert name == "image-3.png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels.squeeze())


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_an_array_that_holds_no_pixels_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixels are uint8 of shape"):
        encoded(pixels, 0)


def test_the_pause_is_what_the_service_asked_for() -> None:
    assert retry_after("7") == 7
    assert retry_after(formatdate(time() + 10, usegmt=True)) == pytest.approx(10, abs=2)
    assert retry_after("soon") is None
    assert pause(httpx.Response(429, headers={"Retry-After": "999"}), 0) == 30
    assert pause(httpx.Response(503, headers={"Retry-After": "soon"}), 2) == 1


def test_a_request_whose_fate_is_unknown_is_sent_again_only_if_that_does_no_harm() -> None:
    lost = httpx.RemoteProtocolError("gone")
    assert again(lost, repeatable=True)
    assert not again(lost, repeatable=False)
    assert again(httpx.ConnectError("down"), repeatable=False)
    assert not again(httpx.ReadTimeout("slow"), repeatable=True)
    assert not again(httpx.Response(504), repeatable=True)


def test_a_deletion_is_not_sent_twice_over_a_lost_connection() -> None:
    script = Script(httpx.ReadError("lost"))
    with script.client() as client, pytest.raises(httpx.ReadError):
        client.delete_label_set("pets")
    assert len(script.requests) == 1


def test_the_api_key_goes_with_every_request() -> None:
    script = Script(ok(LABEL_SET))
    with Client("http://service", api_key="secret", transport=httpx.MockTransport(script.handle)) as client:
        client.label_set("pets")
    assert script.requests[0].headers["authorization"] == "Bearer secret"


def test_an_adaptation_is_followed_over_a_broken_stream() -> None:
    def events(*progress: float) -> httpx.Response:
        text = "".join(f'data: {{"status": "adapting", "progress": {one}}}\n\n' for one in progress)
        return httpx.Response(200, text=text)

    working = ok(LABEL_SET | {"status": "adapting", "progress": 0.5})
    script = Script(working, events(0.2), working, httpx.ReadError("lost"), working, events(0.8), ok(LABEL_SET))
    told: list[float] = []
    with script.client() as client:
        assert client.create_label_set(["cat"], progress=lambda status, done: told.append(done)).status == "ready"
    assert told == [0.2, 0.8]


def test_any_number_of_images_goes_in_small_requests_and_a_bad_one_is_an_answer() -> None:
    full = {
        "results": ANSWERED * 2, "adapted": True, "adapter": "a", "served_by": "a", "label_set": "ab",
        "status": "ready", "source_prompts": "none", "backbone": "b", "timings_ms": {},
    }  # fmt: skip
    script = Script(ok(full), ok(BAD, 422))
    with script.client() as client:
        answers = list(client.classify_all([b"1", b"2", b"3"], at_once=2, label_set="pets"))
    assert [one.error is None for one in answers] == [True, True, False]
    assert answers[2].error is not None
    assert answers[2].error.detail == "cut short"


def test_what_concerns_the_whole_request_is_raised() -> None:
    missing = {"type": "/problems/not-found", "title": "Not found", "status": 404, "detail": "no label set"}
    script = Script(ok(missing, 404))
    with script.client() as client, pytest.raises(ServiceProblem, match="no label set"):
        list(client.classify_all([b"1"], label_set="pets"))
