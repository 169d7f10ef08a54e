"""Label-set records: what was uploaded, durable before it is acknowledged. Names are mutable pointers to record ids.

A record also says which few-shot fit serves its label set; see `service.labels.fits`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from adapters.base import ClassName, InfoValue, LabelSet, content_hash
from adapters.errors import AdapterError
from service.errors import StoreError
from service.stores import Store

RECORD_SCHEMA = 1
ID_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Fit:
    """Which method learns, or learnt, from the support images whose digest is `support`.

    `error` is why it ended without a result; `former` is the fit that serves until this one is ready.
    """

    adapter: str
    options: Mapping[str, InfoValue]
    support: str
    deadline: float | None = None
    created: float = 0.0
    error: str | None = None
    former: Fit | None = None

    @property
    def key(self) -> str:
        """The same for the same method, options and support images."""
        return content_hash([self.adapter, dict(self.options), self.support])


@dataclass(frozen=True, slots=True)
class Record:
    """`id` is the hash of content, adapter and options; the other fields are no part of it. `auto`: the adapter was
    chosen by the service. `former_name`: the name it had until other content took it over."""

    id: str
    labels: LabelSet
    adapter: str
    options: Mapping[str, InfoValue] = field(default_factory=dict)
    name: str | None = None
    created: float = 0.0
    auto: bool = False
    fit: Fit | None = None
    former_name: str | None = None


def record_id(labels: LabelSet, adapter: str, options: Mapping[str, InfoValue]) -> str:
    return content_hash({"labels": labels.id, "adapter": adapter, "options": dict(options)})


def encode_record(record: Record) -> bytes:
    content = {
        "schema": RECORD_SCHEMA,
        "id": record.id,
        "name": record.name,
        "former_name": record.former_name,
        "classes": [[c.name, c.aliases, c.descriptions] for c in record.labels.classes],
        "templates": record.labels.templates,
        "adapter": record.adapter,
        "options": dict(record.options),
        "created": record.created,
        "auto": record.auto,
        "fit": None if record.fit is None else asdict(record.fit),
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def decode_record(data: bytes) -> Record:
    """Raises `StoreError` for bytes that are no record of this schema: then the store is not to be trusted."""
    try:
        content: dict[str, Any] = json.loads(data.decode("utf-8", "surrogatepass"))
        if content["schema"] != RECORD_SCHEMA:
            raise StoreError(f"a record has schema {content['schema']}, this version reads {RECORD_SCHEMA}")
        classes = tuple(ClassName(name, tuple(others), tuple(texts)) for name, others, texts in content["classes"])
        return Record(
            id=content["id"],
            labels=LabelSet(classes, tuple(content["templates"])),
            adapter=content["adapter"],
            options=content["options"],
            name=content["name"],
            created=content["created"],
            auto=content.get("auto", False),
            fit=_fit(content.get("fit")),
            former_name=content.get("former_name"),
        )
    except (ValueError, KeyError, TypeError, RecursionError, AdapterError) as error:
        raise StoreError(f"a stored label-set record cannot be read: {error}") from error


def _fit(content: dict[str, Any] | None) -> Fit | None:
    return None if content is None else Fit(**{**content, "former": _fit(content["former"])})


def _named(record: Record, name: str | None) -> Record:
    return record if name is None else replace(record, name=name, former_name=None)


class RecordBook:
    """Reads are remembered for `fresh` seconds, and longer while the store cannot be reached."""

    def __init__(self, store: Store, *, fresh: float = 5.0, remembered: int = 512) -> None:
        self._store = store
        self._fresh = fresh
        self._capacity = remembered
        self._memory: OrderedDict[str, tuple[float, Record | str | None]] = OrderedDict()
        self._writing = asyncio.Lock()
        self._changes = 0

    async def add(self, record: Record) -> tuple[Record, bool]:
        """The record as stored, and whether it is new. A `name` is moved here from whatever had it."""
        async with self._writing:
            known = await self._load(record.id)
            stored = record if known is None else _named(known, record.name)
            if stored != known:
                await self._save(stored)
            if record.name is not None:
                await self._point(record.name, record.id)
            if known is not None and known.name not in (None, stored.name):
                await self._drop(f"name:{known.name}")
            return stored, known is None

    async def change(self, one: str, change: Callable[[Record], Record]) -> Record | None:
        """The record as it is after `change`, durable; None if it is gone."""
        async with self._writing:
            known = await self._load(one)
            if known is None:
                return None
            changed = change(known)
            if changed != known:
                await self._save(changed)
            return changed

    async def find(self, ref: str) -> Record | None:
        """By id or by name."""
        target = ref if ID_PATTERN.fullmatch(ref) else await self._remembered(f"name:{ref}")
        if not isinstance(target, str):
            return None
        found = await self._remembered(f"record:{target}")
        return found if isinstance(found, Record) else None

    async def page(self, *, after: str, limit: int) -> tuple[list[Record], str | None]:
        """Records in order of id behind `after`, and the `after` of the next page."""
        keys = await self._store.keys("record:", after=f"record:{after}" if after else "", limit=limit + 1)
        ids = [key.removeprefix("record:") for key in keys]
        found = [await self._load(one) for one in ids[:limit]]
        return [record for record in found if record is not None], ids[limit - 1] if len(ids) > limit else None

    async def remove(self, record: Record) -> None:
        async with self._writing:
            if record.name is not None and await self._store.get(f"name:{record.name}") == record.id.encode():
                await self._drop(f"name:{record.name}")
            await self._drop(f"record:{record.id}")

    async def _point(self, name: str, target: str) -> None:
        key = f"name:{name}"
        before = await self._store.get(key)
        if before == target.encode():
            return
        await self._store.put(key, target.encode())
        self._memory.pop(key, None)
        former = await self._load(before.decode()) if before else None
        if former is not None and former.name == name:
            await self._save(replace(former, name=None, former_name=name))

    async def _load(self, one: str) -> Record | None:
        data = await self._store.get(f"record:{one}")
        return decode_record(data) if data is not None else None

    async def _save(self, record: Record) -> None:
        self._changes += 1
        await self._store.put(f"record:{record.id}", encode_record(record))
        self._remember(f"record:{record.id}", record)

    async def _drop(self, key: str) -> None:
        self._changes += 1
        await self._store.delete(key)
        self._memory.pop(key, None)

    async def _remembered(self, key: str) -> Record | str | None:
        known = self._memory.get(key)
        if known is not None and time.monotonic() - known[0] < self._fresh:
            self._memory.move_to_end(key)
            return known[1]
        changes = self._changes
        try:
            data = await self._store.get(key)
        except StoreError:
            if known is None:
                raise
            return known[1]
        if data is None:
            self._memory.pop(key, None)
            return None
        value = decode_record(data) if key.startswith("record:") else data.decode()
        if changes == self._changes:  # else what was read may have been changed or deleted meanwhile
            self._remember(key, value)
        return value

    def _remember(self, key: str, value: Record | str) -> None:
        self._memory[key] = (time.monotonic(), value)
        self._memory.move_to_end(key)
        while len(self._memory) > self._capacity:
            self._memory.popitem(last=False)
