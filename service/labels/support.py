"""Support images as they are kept: the uploaded bytes, by class and content digest, in the store of the records.

Keys: `support:<label set>:<class row>` lists the images of a class and is written last, so that what it names is there;
`image:<label set>:<class row>:<digest>:<part>` holds bytes; `fit:<label set>:<support digest>` is the list of images
that a fit learns from.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from weakref import WeakValueDictionary

from adapters.base import content_hash
from adapters.errors import SupportError
from service.errors import LimitExceeded, StoreError
from service.stores import Store

PART_BYTES = 1 << 20
"""Larger images are kept in parts, so that no single read or write takes long."""

PAGE = 100


@dataclass(frozen=True, slots=True)
class SupportImage:
    """One image of a class; `digest` is the SHA-256 of its bytes, `size` their number."""

    digest: str
    size: int
    caption: str | None = None


Shelf = dict[int, tuple[SupportImage, ...]]
"""Images by class row."""


@dataclass(frozen=True, slots=True)
class SupportLimits:
    max_support_images: int
    max_support_total: int
    max_support_bytes: int
    max_caption_characters: int

    def check(self, images: int, total: int, size: int) -> None:
        for limit, actual in (
            ("max_support_images", images), ("max_support_total", total), ("max_support_bytes", size),
        ):  # fmt: skip
            allowed: int = getattr(self, limit)
            if actual > allowed:
                raise LimitExceeded(limit, allowed, actual=actual, field="images")


def support_digest(shelf: Mapping[int, Sequence[SupportImage]]) -> str:
    """Hash of which images and captions each class has."""
    return content_hash([[row, [[one.digest, one.caption] for one in shelf[row]]] for row in sorted(shelf)])


class SupportShelves:
    """Changes of one label set happen one after the other within a process."""

    def __init__(self, store: Store, limits: SupportLimits, *, fresh: float = 30.0) -> None:
        self._store = store
        self.limits = limits
        self._fresh = fresh
        self._known: dict[str, tuple[float, Shelf]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def put(self, label_set: str, row: int, images: Sequence[tuple[bytes, str | None]]) -> list[SupportImage]:
        """Replaces the images of one class; durable once it returns. The images that were there before stay until
        `tidy`."""
        given = [(data, SupportImage(hashlib.sha256(data).hexdigest(), len(data), caption)) for data, caption in images]
        entries = {entry.digest: (data, entry) for data, entry in given}
        kept = [entry for _, entry in entries.values()]
        async with self._lock(label_set):
            others = {key: value for key, value in (await self._remembered(label_set)).items() if key != row}
            held = [one for shelf in others.values() for one in shelf]
            self.limits.check(len(kept), len(held) + len(kept), sum(one.size for one in [*held, *kept]))
            for data, entry in entries.values():
                await self._write(label_set, row, entry, data)
            listed = json.dumps([asdict(one) for one in kept], ensure_ascii=False).encode()
            await self._store.put(_list_key(label_set, row), listed)
            self._known[label_set] = (time.monotonic(), {**others, row: tuple(kept)})
        return kept

    async def all(self, label_set: str) -> Shelf:
        shelf: Shelf = {}
        async for key in self._keys(f"support:{label_set}:"):
            data = await self._store.get(key)
            if data is not None:
                shelf[int(key.rpartition(":")[2])] = _listed(data)
        return shelf

    async def remove(self, label_set: str, row: int) -> bool:
        """Whether the class had images. They are gone at once, also for a fit that learnt from them."""
        async with self._lock(label_set):
            self._known.pop(label_set, None)
            found = await self._store.delete(_list_key(label_set, row))
            await self._sweep(f"image:{label_set}:{row:05d}:")
        return found

    async def drop(self, label_set: str) -> None:
        """Everything that was kept for a label set."""
        async with self._lock(label_set):
            self._known.pop(label_set, None)
            for kind in ("support", "fit", "image"):
                await self._sweep(f"{kind}:{label_set}:")

    async def copy(self, source: str, target: str) -> None:
        """The images of the same class rows for another label set."""
        for row, images in sorted((await self.all(source)).items()):
            await self.put(target, row, [(await self.read(source, row, one), one.caption) for one in images])

    async def freeze(self, label_set: str) -> tuple[str, Shelf]:
        """The digest of the present images, which can be had again with `frozen`, and the images."""
        async with self._lock(label_set):
            shelf = await self.all(label_set)
        return await self.freeze_these(label_set, shelf), shelf

    async def freeze_these(self, label_set: str, shelf: Shelf) -> str:
        digest = support_digest(shelf)
        listed = [[row, asdict(one)] for row in sorted(shelf) for one in shelf[row]]
        await self._store.put(f"fit:{label_set}:{digest}", json.dumps(listed, ensure_ascii=False).encode())
        return digest

    async def frozen(self, label_set: str, digest: str) -> list[tuple[int, SupportImage]]:
        """Raises `SupportError` when they are not there any more."""
        data = await self._store.get(f"fit:{label_set}:{digest}")
        if data is None:
            raise SupportError("the support images of this fit are gone; upload images and fit again")
        return [(int(row), SupportImage(**entry)) for row, entry in json.loads(data)]

    async def tidy(self, label_set: str, fits: set[str], row: int | None = None) -> None:
        """Forgets the images, of one class or of all, that neither their class nor a frozen list in `fits` has, and
        the other frozen lists."""
        async with self._lock(label_set):
            async for key in self._keys(f"fit:{label_set}:"):
                if key.rpartition(":")[2] not in fits:
                    await self._store.delete(key)
            needed = {(place, one.digest) for place, images in (await self.all(label_set)).items() for one in images}
            for digest in fits:
                with suppress(SupportError):  # deleted by its owner
                    needed |= {(place, one.digest) for place, one in await self.frozen(label_set, digest)}
            async for key in self._keys(f"image:{label_set}:" + ("" if row is None else f"{row:05d}:")):
                _, _, place, name, _ = key.split(":")
                if (int(place), name) not in needed:
                    await self._store.delete(key)

    async def read(self, label_set: str, row: int, image: SupportImage) -> bytes:
        """The bytes as uploaded. Raises `SupportError` when they were deleted."""
        parts = [await self._store.get(key) for key in _image_keys(label_set, row, image)]
        data = b"".join(part for part in parts if part is not None)
        if len(data) != image.size:
            raise SupportError("a support image of this fit was deleted; fit again with the images that there are")
        return data

    async def _write(self, label_set: str, row: int, image: SupportImage, data: bytes) -> None:
        for number, key in enumerate(_image_keys(label_set, row, image)):
            await self._store.put(key, data[number * PART_BYTES : (number + 1) * PART_BYTES])

    async def _remembered(self, label_set: str) -> Shelf:
        """Good enough for limits: what other processes added lately may be missing."""
        known = self._known.get(label_set)
        if known is not None and time.monotonic() - known[0] < self._fresh:
            return known[1]
        self._known = {key: entry for key, entry in self._known.items() if time.monotonic() - entry[0] < self._fresh}
        return await self.all(label_set)

    async def _sweep(self, prefix: str) -> None:
        async for key in self._keys(prefix):
            await self._store.delete(key)

    async def _keys(self, prefix: str) -> AsyncIterator[str]:
        after = ""
        while True:
            found = await self._store.keys(prefix, after=after, limit=PAGE)
            for key in found:
                yield key
            if len(found) < PAGE:
                return
            after = found[-1]

    def _lock(self, label_set: str) -> asyncio.Lock:
        return self._locks.setdefault(label_set, asyncio.Lock())


def _list_key(label_set: str, row: int) -> str:
    return f"support:{label_set}:{row:05d}"


def _image_keys(label_set: str, row: int, image: SupportImage) -> list[str]:
    parts = max(1, -(-image.size // PART_BYTES))
    return [f"image:{label_set}:{row:05d}:{image.digest}:{part:04d}" for part in range(parts)]


def _listed(data: bytes) -> tuple[SupportImage, ...]:
    try:
        return tuple(SupportImage(**entry) for entry in json.loads(data))
    except (ValueError, TypeError) as error:
        raise StoreError(f"a stored list of support images cannot be read: {error}") from error
