"""A caller that leaves, at each stage of a request, over a real connection: nothing of it is left, and the next is
answered."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from threading import Event
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from torch import Tensor

from adapters.clip import Backbone
from tests.service.listening import listening
from tests.service.served import photo


class HeldTower:
    """Its batches wait until `go` is set."""

    def __init__(self, backbone: Backbone) -> None:
        self._tower = backbone.image
        self.go, self.entered = Event(), Event()
        self.go.set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._tower, name)

    def encode(self, pixels_B3SS: Tensor) -> Tensor:
        self.entered.set()
        assert self.go.wait(20)
        return self._tower.encode(pixels_B3SS)


class HeldPreprocess:
    """No image gets its pixels until `go` is set; `held` tells how many decoders wait."""

    def __init__(self, backbone: Backbone) -> None:
        self._preprocess = backbone.preprocess
        self.go, self.held = Event(), 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._preprocess, name)

    def pixels(self, image: Image.Image) -> Tensor:
        self.held += 1
        assert self.go.wait(20)
        return self._preprocess.pixels(image)


@pytest.fixture(scope="module")
def tower(tiny_backbone: Backbone) -> HeldTower:
    return HeldTower(tiny_backbone)


@pytest.fixture(scope="module")
def address(tiny_backbone: Backbone, tower: HeldTower) -> Iterator[str]:
    with listening(replace(tiny_backbone, image=tower), embedding_bytes=0) as url:  # type: ignore[arg-type]  # has what is asked of it
        yield url


def sent(address: str, part: float = 1.0) -> socket.socket:
    """A connection on which so much of a request's body was sent."""
    place, body = urlsplit(address), photo(size=(200, 200))
    line = socket.create_connection((place.hostname or "", place.port or 80), timeout=10)
    head = "POST /v1/classify?labels=a,b HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: int(part * len(body))])
    return line


def metric(address: str, name: str) -> float:
    text = httpx.get(f"{address}/metrics", trust_env=False).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def soon(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def is_answered(address: str) -> None:
    answer = httpx.post(
        f"{address}/v1/classify?labels=a,b", content=photo(), headers={"content-type": "image/png"}, trust_env=False
    )
    assert answer.status_code == 200
    soon(lambda: metric(address, "selftpt_in_flight_requests") == 1)  # the question itself
    assert metric(address, "selftpt_queue_images") == 0


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_who_leaves_while_its_body_is_awaited_leaves_nothing(address: str, part: float) -> None:
    with sent(address, part):
        soon(lambda: metric(address, "selftpt_in_flight_requests") == 2)
    is_answered(address)


def test_who_leaves_in_the_queue_and_who_leaves_on_the_device_leave_nothing(address: str, tower: HeldTower) -> None:
    is_answered(address)  # the classes are known
    before = metric(address, "selftpt_cancelled_total")
    tower.entered.clear()
    tower.go.clear()
    try:
        with sent(address):  # on the device
            assert tower.entered.wait(10)
            with sent(address):  # waits behind it
                soon(lambda: metric(address, "selftpt_queue_images") == 1)
            soon(lambda: metric(address, "selftpt_queue_images") == 0)
        soon(lambda: metric(address, "selftpt_cancelled_total") == before + 2)
    finally:
        tower.go.set()
    is_answered(address)


def test_who_leaves_while_decoded_and_who_leaves_before_a_decoder_is_free_leave_nothing(
    tiny_backbone: Backbone,
) -> None:
    held = HeldPreprocess(tiny_backbone)
    slow = replace(tiny_backbone, preprocess=held)  # type: ignore[arg-type]  # has what is asked of it
    with listening(slow, embedding_bytes=0, preprocess="exact") as address:
        with ExitStack() as callers:
            for _ in range(7):  # two decoders, two images ahead of each, and more
                callers.enter_context(sent(address))
            soon(lambda: held.held == 2)
            soon(lambda: metric(address, "selftpt_in_flight_requests") == 8)
        soon(lambda: metric(address, "selftpt_cancelled_total") == 7)
        held.go.set()
        is_answered(address)
        assert held.held == 3, "images that nobody waits for are not decoded"
