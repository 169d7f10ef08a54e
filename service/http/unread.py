"""Pure ASGI middleware: what is left of a body when its request was answered early is read and dropped.

Where the connection is closed after the answer, bytes that nobody read make the kernel reset it, and the reset can
overtake the answer. Where it is kept, a server would go on reading without a bound.
"""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE = 5.0
"""Seconds, in all, for the rest of a body that nobody wants."""

END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class UnreadBodyMiddleware:
    """The caller has the whole answer before the rest of its body is read; only the end of the exchange waits for that.
    A body announced as longer than `max_bytes` costs its connection, and of one that turns out so no more is read."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, patience: float = PATIENCE) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if not ("content-length" in headers or "transfer-encoding" in headers):
            await self._app(scope, receive, send)
            return
        body = _Body(receive, headers)
        held_back = False

        async def send_all_but_end(message: Message) -> None:
            nonlocal held_back
            if message["type"] == "http.response.start" and (body.uncalled or body.longer_than(self._max_bytes)):
                MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            held_back = last and not body.ended and not body.uncalled
            await send({**message, "more_body": True} if held_back else message)

        await self._app(scope, body.receive, send_all_but_end)
        if held_back:
            await body.drop(self._max_bytes, self._patience)
            await send(END)


class _Body:
    def __init__(self, receive: Receive, headers: Headers) -> None:
        self._receive = receive
        announced = headers.get("content-length", "")
        self._announced = int(announced) if announced.isdecimal() else 0
        self.uncalled = "expect" in headers
        """Its sender waits to be asked for it (`Expect: 100-continue`), and after a refusal it may come or not."""
        self.ended = False

    def longer_than(self, count: int) -> bool:
        return not self.ended and self._announced > count

    async def receive(self) -> Message:
        self.uncalled = False
        message = await self._receive()
        self.ended = self.ended or not message.get("more_body", False)
        return message

    async def drop(self, max_bytes: int, patience: float) -> None:
        left = max_bytes
        with anyio.move_on_after(patience):
            while not self.ended and left > 0:
                left -= len((await self.receive()).get("body", b""))
