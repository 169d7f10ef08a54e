"""Work that ends when its caller hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio
from fastapi import Request

from service.errors import ClientGone

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the caller disconnects. The body must have been read before."""
    with anyio.CancelScope() as scope:
        gone = asyncio.ensure_future(_disconnected(request, scope))
        try:
            return await work
        finally:
            gone.cancel()
    raise ClientGone("the caller hung up")


async def _disconnected(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
