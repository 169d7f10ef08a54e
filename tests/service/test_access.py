"""The outermost layer: nobody goes without an answer."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope, Send

from service.telemetry.access import AccessMiddleware
from service.telemetry.metrics import Metrics

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/slow", "headers": []}


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def test_a_request_that_the_server_cancels_is_told_that_the_service_shuts_down() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    task = asyncio.create_task(AccessMiddleware(never, Metrics())(SCOPE, receive, send))
    await asyncio.sleep(0.01)
    task.cancel()
    await task
    assert sent[0]["status"] == 503
    assert b"shutting-down" in sent[1]["body"]
