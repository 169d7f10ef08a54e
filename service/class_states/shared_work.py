"""One adaptation for all processes that share a store: it is this one's turn, or it waits for the one whose turn it is
and takes over when that goes silent."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from adapters.base import ClassState
from adapters.errors import AdaptationDiverged, AdapterError, BackboneError, LabelSetError, SupportError
from service.class_states.flights import Flight, Snapshot, Want
from service.errors import ComputeError, DeadlineExceeded, ServiceError, StoreError
from service.stores.turns import Alone, Claim, Failed, Turn, Turns, Wait
from service.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

ASK_EVERY = 0.4
"""Seconds after which who waits asks again, if there are no news."""

PATIENCE = 5.0
"""Seconds that a store may be unreachable while somebody else's result is waited for."""

CANCELLED = "cancelled: the label set or its fit was deleted"

_KINDS: dict[str, type[Exception]] = {
    one.__name__: one
    for one in (AdaptationDiverged, BackboneError, LabelSetError, SupportError, ComputeError, DeadlineExceeded)
}

Load = Callable[[Want], Awaitable[ClassState | None]]


class SharedWork:
    """`turns` is None where no other process can see the store. Plain zero-shot is not shared: answers wait for it,
    and computing it twice costs less than waiting for another process."""

    def __init__(self, turns: Turns | None, alone: Alone, load: Load, metrics: Metrics) -> None:
        self._alone = alone
        self._turns = turns or alone
        self._load = load
        self._leases = metrics.leases

    async def outcome(self, flight: Flight) -> Claim | ClassState:
        """A claim: the state is to be computed here. A state: somebody else did. Raises what failed elsewhere."""
        key = flight.want.key
        if flight.want.adapter.name == "zero-shot" or self._turns is self._alone:
            return await self._unshared(key)
        try:
            turn = await self._turns.take(key, waited=False)
            if turn.claim is not None:
                return self._ours(turn.claim, "acquired")
            self._leases.labels("waited").inc()
            async with self._turns.news(key) as wait:
                return await self._waited(flight, turn, wait)
        except StoreError as error:
            _log.warning("adapting without regard to other processes", extra={"error": error.detail})
            return await self._unshared(key)

    async def look(self, key: str) -> Snapshot | None:
        """What another process does about this key just now."""
        try:
            turn = await self._turns.look(key)
        except StoreError:
            return None
        if turn is not None and turn.failed is not None:
            return Snapshot("failed", 0.0, turn.failed.text)
        return Snapshot("adapting", turn.progress) if turn is not None and turn.kind == "theirs" else None

    async def revoke(self, key: str) -> None:
        try:
            await self._turns.revoke(key)
        except StoreError as error:
            _log.warning("other processes may go on adapting", extra={"key": key, "error": error.detail})

    async def _waited(self, flight: Flight, turn: Turn, wait: Wait) -> Claim | ClassState:
        misses = 0
        while turn.claim is None:
            if turn.failed is not None:
                raise error_of(turn.failed)
            if turn.kind == "revoked":
                raise ComputeError(CANCELLED)
            if turn.kind == "theirs":
                await self._follow(flight, turn.progress, wait)
            elif (state := await self._load(flight.want)) is not None:
                return state
            elif (misses := misses + 1) > 1:
                return await self._unshared(flight.want.key)  # it is there, and yet it cannot be read
            turn = await self._patiently(flight.want.key)
        return self._ours(turn.claim, "taken_over")

    async def _follow(self, flight: Flight, progress: float | None, wait: Wait) -> None:
        """Returns when there are news other than progress, or none for a while."""
        while progress is not None:
            flight.advance(progress)
            progress = await wait(ASK_EVERY * random.uniform(0.75, 1.25))

    async def _patiently(self, key: str) -> Turn:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return await self._turns.take(key, waited=True)
            except StoreError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(ASK_EVERY)

    async def _unshared(self, key: str) -> Claim:
        claim = (await self._alone.take(key)).claim
        assert claim is not None
        return claim

    def _ours(self, claim: Claim, event: str) -> Claim:
        self._leases.labels(event).inc()
        return claim


async def end(claim: Claim, error: AdapterError | ServiceError) -> None:
    """What lies in the label set or the method is told to the others; the rest is for the next to try."""
    if isinstance(error, (AdapterError, ComputeError, DeadlineExceeded)):
        await claim.fail(Failed(type(error).__name__, str(error)))
    else:
        await claim.release()


def error_of(failed: Failed) -> Exception:
    return _KINDS.get(failed.kind, ComputeError)(failed.text)
