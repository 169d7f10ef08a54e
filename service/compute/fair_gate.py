"""A gate that lets a few through at once, on one event loop. Who has to wait goes in by fair shares of the clients."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.compute.fair_shares import FairOrder


class FairGate:
    def __init__(self, places: int) -> None:
        self._free = places
        self._order = FairOrder()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[None]:
        await self._enter(client)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, client: str) -> None:
        tag = self._order.tag(client, 1.0)
        if self._free:
            self._free -= 1
            self._order.serve(tag)
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (tag, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the place was given to it in the same moment
                self._leave()
            raise

    def _leave(self) -> None:
        while self._waiting:
            tag, _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # else whoever waited has left
                self._order.serve(tag)
                turn.set_result(None)
                return
        self._free += 1
