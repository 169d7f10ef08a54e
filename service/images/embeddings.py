"""What the image tower made of images, by their content: the same image against another label set costs no tower pass.

Memory first, bounded by bytes; behind it a shared store, if one is given. Only features of images as they are: those
with views or visual prompts belong to one method or one label set and are not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from typing import Protocol

import torch
from torch import Tensor

from adapters.base import content_hash
from adapters.clip import Backbone
from service.errors import StoreError
from service.telemetry.metrics import Metrics

SCHEMA = 1
ENTRY_BYTES = 700
"""What an entry costs beside its numbers: key, tensor and table slot, rounded up."""

LARGE_IMAGE = 1 << 18
"""Bytes from which an image is hashed in a thread."""

UNIT = 1e-3
"""How far from 1 the length of stored features may be."""

_log = logging.getLogger(__name__)


class SharedStore(Protocol):
    """What is needed of a store that other processes see too."""

    async def get(self, key: str) -> bytes | None: ...
    async def put(self, key: str, value: bytes) -> None: ...


def embedding_space(backbone: Backbone, preprocessing: str) -> str:
    """Hash of all that decides which features an image gets: weights, engine and precision, and how its bytes become
    pixels."""
    return content_hash([SCHEMA, backbone.fingerprint, backbone.precision, backbone.image.kind, preprocessing])


class Embeddings:
    """Used on the event loop only. A store that fails is a miss."""

    def __init__(
        self, space: str, width: int, *, max_bytes: int, metrics: Metrics, shared: SharedStore | None = None
    ) -> None:
        """`width` of a row of features. With `max_bytes` 0 nothing is kept or looked up."""
        self._space = space
        self._width = width
        self._max_bytes = max_bytes
        self._shared = shared
        self._metrics = metrics
        self._rows: OrderedDict[str, Tensor] = OrderedDict()
        self._flights: dict[str, asyncio.Future[Tensor | None]] = {}
        self._writes: set[asyncio.Task[None]] = set()
        metrics.watch_cache("embedding_memory", lambda: self.nbytes)

    @property
    def nbytes(self) -> int:
        return len(self._rows) * (4 * self._width + ENTRY_BYTES)

    async def key(self, data: bytes) -> str | None:
        """None where nothing is kept."""
        if not self._max_bytes:
            return None
        digest = await asyncio.to_thread(_digest, data) if len(data) > LARGE_IMAGE else _digest(data)
        return f"embedding:{self._space}:{digest}"

    async def find(self, key: str) -> Tensor | None:
        """Unit features, float32 [D]."""
        row_D = self._rows.get(key)
        self._count("memory", row_D)
        if row_D is not None:
            self._rows.move_to_end(key)
        elif self._shared is not None:
            row_D = await self._stored(self._shared, key)
            self._count("shared", row_D)
            if row_D is not None:
                self._remember(key, row_D)
        return row_D

    async def find_or_lead(self, key: str) -> Tensor | None:
        """As `find`, but of many who ask for the same image at once, one gets None and the others what that one hands
        to `land`. Who leads waits for nobody, and must land."""
        while (flight := self._flights.get(key)) is not None:
            row_D = await asyncio.shield(flight)
            if row_D is not None:
                self._count("flight", row_D)
                return row_D
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        row_D, looked = None, False
        try:
            row_D = await self.find(key)
            looked = True
        finally:
            if row_D is not None or not looked:
                self.land(key, row_D)
        return row_D

    def land(self, key: str, row_D: Tensor | None) -> None:
        """Lets go of everyone who waits for this image; None where it came to nothing. Idempotent."""
        flight = self._flights.pop(key, None)
        if flight is not None and not flight.done():
            flight.set_result(row_D)

    def keep(self, key: str, row_D: Tensor) -> None:
        """Returns before the shared store has it."""
        self._remember(key, row_D)
        if self._shared is not None:
            write = asyncio.get_running_loop().create_task(self._write(self._shared, key, row_D.numpy().tobytes()))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    def _remember(self, key: str, row_D: Tensor) -> None:
        self._rows[key] = row_D
        while self.nbytes > self._max_bytes:
            self._rows.popitem(last=False)

    async def _stored(self, store: SharedStore, key: str) -> Tensor | None:
        try:
            blob = await store.get(key)
        except StoreError:
            return None
        if blob is None or len(blob) != 4 * self._width:
            return None
        row_D = torch.frombuffer(bytearray(blob), dtype=torch.float32)
        return row_D if abs(float(row_D.norm()) - 1) < UNIT else None

    async def _write(self, store: SharedStore, key: str, blob: bytes) -> None:
        try:
            await store.put(key, blob)
        except StoreError as error:
            _log.debug("an embedding was not shared", extra={"error": error.detail})

    def _count(self, tier: str, found: Tensor | None) -> None:
        self._metrics.cache_lookups.labels(f"embedding_{tier}", "miss" if found is None else "hit").inc()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
