"""Pure ASGI middleware: bodies are bounded in bytes each, in bytes together, and in time."""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import LimitExceeded, Overloaded, RequestTimeout


class BodyLimitMiddleware:
    """`max_held_bytes` counts a body from its first byte until its request is answered."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, max_held_bytes: int, timeout: float) -> None:
        self._app = app
        self._max_body = max_body_bytes
        self._max_held = max_held_bytes
        self._timeout = timeout
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        body = _Body(self, receive, int(announced) if announced.isdecimal() else 0)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._held -= body.size

    def check(self, size: int) -> None:
        if size > self._max_body:
            raise LimitExceeded("max_body_bytes", self._max_body, actual=size)

    def take(self, size: int, count: int) -> None:
        """Raises when a body of now `size` bytes, of which `count` are new, is too much."""
        self.check(size)
        if self._held + count > self._max_held:
            raise Overloaded("the bodies of running requests fill the memory set aside for them", reason="held_bytes")
        self._held += count

    async def timed(self, receive: Receive) -> Message:
        with anyio.move_on_after(self._timeout):
            return await receive()
        raise RequestTimeout(f"no further part of the body came within {self._timeout:g} s")


class _Body:
    def __init__(self, limit: BodyLimitMiddleware, receive: Receive, announced: int) -> None:
        self._limit = limit
        self._announced = announced
        self._receive = receive
        self._ended = False
        self.size = 0

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()
        self._limit.check(self._announced)
        message = await self._limit.timed(self._receive)
        count = len(message.get("body", b""))
        self._limit.take(self.size + count, count)
        self.size += count
        self._ended = not message.get("more_body", False)
        return message
