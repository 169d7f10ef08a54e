"""Bodies are bounded in size, in sum and in time, before any route sees them."""

from __future__ import annotations

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.errors import LimitExceeded, Overloaded, RequestTimeout, ServiceError
from service.http.body_limit import BodyLimitMiddleware

SCOPE: Scope = {"type": "http", "headers": []}


async def swallow(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass


async def never_sent(message: Message) -> None:
    raise AssertionError


def parts(*sizes: int) -> Receive:
    left = list(sizes)

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(left.pop(0)), "more_body": bool(left)}

    return receive


@pytest.mark.parametrize(
    ("sizes", "headers", "error"),
    [
        ((60, 60), [], LimitExceeded),
        ((1,), [(b"content-length", b"101")], LimitExceeded),
        ((60, 40), [(b"content-length", b"100")], None),
    ],
)
async def test_a_body_is_bounded_announced_or_not(
    sizes: tuple[int, ...], headers: list[tuple[bytes, bytes]], error: type[ServiceError] | None
) -> None:
    limit = BodyLimitMiddleware(swallow, max_body_bytes=100, max_held_bytes=500, timeout=5)
    if error is None:
        await limit({**SCOPE, "headers": headers}, parts(*sizes), never_sent)
        return
    with pytest.raises(error):
        await limit({**SCOPE, "headers": headers}, parts(*sizes), never_sent)


async def test_all_bodies_together_are_bounded_until_their_requests_end() -> None:
    async def second_inside(scope: Scope, receive: Receive, send: Send) -> None:
        await swallow(scope, receive, send)
        if scope.get("inner") is None:
            await limit({**SCOPE, "inner": True}, parts(60), never_sent)

    limit = BodyLimitMiddleware(second_inside, max_body_bytes=100, max_held_bytes=100, timeout=5)
    with pytest.raises(Overloaded):
        await limit(SCOPE, parts(60), never_sent)
    await limit({**SCOPE, "inner": True}, parts(100), never_sent)


async def test_a_body_that_stops_coming_is_a_408() -> None:
    async def stuck() -> Message:
        await anyio.sleep(30)
        raise AssertionError

    with pytest.raises(RequestTimeout):
        await BodyLimitMiddleware(swallow, max_body_bytes=9, max_held_bytes=9, timeout=0.05)(SCOPE, stuck, never_sent)
