"""An answer that comes before the body was read arrives, on a connection that can be used again where that is possible:
shown with the server that serves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from adapters.clip import Backbone
from service.http.unread import UnreadBodyMiddleware
from tests.service.listening import listening

LIMIT = 1 << 20


@pytest.fixture(scope="module")
def address(tiny_backbone: Backbone) -> Iterator[str]:
    with listening(tiny_backbone, max_body_bytes=LIMIT, max_image_bytes=LIMIT) as url:
        yield url


def connected(address: str) -> socket.socket:
    place = urlsplit(address)
    assert place.hostname is not None
    return socket.create_connection((place.hostname, place.port or 80), timeout=10)


def head(count: int, *lines: str) -> bytes:
    return "\r\n".join(
        ["POST /v1/nothing HTTP/1.1", "Host: localhost", f"Content-Length: {count}", *lines, "", ""]
    ).encode()


def answer(line: socket.socket) -> tuple[int, str]:
    """Status and head of one answer, whose body is read too."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = line.recv(1)
        assert part, "the connection ended without an answer"
        got += part
    text = got.decode().lower()
    left = int(text.split("content-length: ")[1].split("\r\n")[0])
    while left:
        left -= len(line.recv(left))
    return int(text.split(" ")[1]), text


def test_a_connection_outlives_refusals_whose_bodies_nobody_wanted(address: str) -> None:
    with connected(address) as line:
        for _ in range(3):
            line.sendall(head(500_000) + bytes(500_000))
            status, text = answer(line)
            assert status == 404
            assert "connection: close" not in text


def test_the_answer_comes_before_the_body_is_sent(address: str) -> None:
    with connected(address) as line:
        line.sendall(head(500_000))
        assert answer(line)[0] == 404
        line.sendall(bytes(500_000) + head(0))
        assert answer(line)[0] == 404


def test_one_who_wants_the_connection_closed_sends_all_and_has_the_answer(address: str) -> None:
    for _ in range(20):
        with connected(address) as line:
            line.sendall(head(800_000, "Connection: close"))
            line.sendall(bytes(800_000))  # a reset would end this, or lose the answer
            assert answer(line)[0] == 404
            assert line.recv(1) == b""


def test_a_body_announced_as_too_long_costs_its_connection(address: str) -> None:
    with connected(address) as line:
        line.sendall(head(LIMIT + 1))
        status, text = answer(line)
        assert (status, "connection: close" in text) == (404, True)


def test_one_who_waits_to_be_asked_for_the_body_is_not_asked(address: str) -> None:
    with connected(address) as line:
        line.sendall(head(100_000, "Expect: 100-continue"))
        status, text = answer(line)
        assert (status, "connection: close" in text) == (404, True)
        assert line.recv(1) == b""


async def test_what_comes_without_end_is_read_to_a_limit_and_what_does_not_come_is_not_waited_for() -> None:
    read, sent = 0, list[Message]()

    async def receive() -> Message:
        nonlocal read
        read += 10
        return {"type": "http.request", "body": bytes(10), "more_body": True}

    async def never() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 429, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    scope: Scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
    await UnreadBodyMiddleware(refuse, max_bytes=95)(scope, receive, send)
    assert read == 100
    assert [message.get("more_body") for message in sent] == [None, True, False]
    await UnreadBodyMiddleware(refuse, max_bytes=10**9, patience=0.01)(scope, never, send)
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
