"""Class states as stored bytes: read with every doubt, written by whoever has the turn."""

from __future__ import annotations

import asyncio
import logging

from adapters.base import ClassState
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.errors import StateError
from service.class_states.flights import Want
from service.errors import StoreError
from service.stores import Store
from service.stores.turns import Claim
from service.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

LARGE_BLOB = 1 << 18
"""Bytes from which a state is decoded in a thread."""


class KeptStates:
    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    async def load(self, want: Want) -> ClassState | None:
        """None also when the store cannot be read, or what it has is damaged; that is then removed."""
        try:
            blob = await self._store.get(want.key)
            if blob is None:
                return None
            state = (
                await asyncio.to_thread(state_from_bytes, blob) if len(blob) > LARGE_BLOB else state_from_bytes(blob)
            )
            if state.version != want.adapter.version or len(state.weights) != len(want.labels.classes):
                raise StateError("the stored class state is of other content than its key says")
        except StoreError as error:
            _log.warning("class states cannot be read", extra={"error": error.detail})
            return None
        except StateError as error:
            self._metrics.lookups.labels("store", "corrupt").inc()
            _log.warning("a stored class state is damaged and is computed again", extra={"error": str(error)})
            await self.delete(want.key)
            return None
        return state

    async def keep(self, want: Want, state: ClassState, claim: Claim) -> bool:
        """False when somebody else's state counts, not this one. A write that fails costs computing again later."""
        try:
            return await claim.keep(await asyncio.to_thread(state_to_bytes, state))
        except StoreError as error:
            _log.warning("a class state was not stored", extra={"error": error.detail})
            return True

    async def delete(self, key: str) -> None:
        try:
            await self._store.delete(key)
        except StoreError as error:
            _log.warning("a class state could not be deleted", extra={"key": key, "error": error.detail})
