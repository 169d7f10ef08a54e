"""Label sets that are to be ready before the service says that it is: known ones by id or name, others from a file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import anyio
from pydantic import ValidationError

from adapters.base import ClassName
from adapters.errors import AdapterError
from service.errors import NotFound, ServiceError
from service.labels.label_sets import LabelSets
from service.labels.records import Record
from service.schemas import ClassEntry, LabelSetRequest

_log = logging.getLogger(__name__)


class Preload:
    """One after the other. What cannot be loaded is told by readiness, and does not keep the others from serving."""

    def __init__(self, label_sets: LabelSets, wanted: Sequence[str]) -> None:
        self._label_sets = label_sets
        self.waiting = list(wanted)
        self.failed: dict[str, str] = {}

    async def run(self) -> None:
        while self.waiting:
            one = self.waiting[0]
            try:
                await self._load(one)
            except (ServiceError, AdapterError) as error:
                self.failed[one] = str(error)
                _log.warning("a label set was not preloaded", extra={"label_set": one, "error": str(error)})
            self.waiting.pop(0)

    async def _load(self, one: str) -> None:
        file = anyio.Path(one)
        record = await (self._uploaded(Path(one)) if await file.is_file() else self._label_sets.find(one))
        flight = self._label_sets.flight(record)
        await flight.settled()
        if flight.failure is not None:
            raise flight.failure
        _log.info("preloaded", extra={"label_set": record.id, "classes": len(record.labels.classes)})

    async def _uploaded(self, file: Path) -> Record:
        body = await asyncio.to_thread(read_file, file)
        entries = [entry if isinstance(entry, ClassEntry) else ClassEntry(name=entry) for entry in body.classes]
        record, _ = await self._label_sets.upload(
            [ClassName.of(entry.name, tuple(entry.aliases), tuple(entry.descriptions)) for entry in entries],
            body.templates,
            adapter=body.adapter,
            options=body.options,
            name=body.name,
        )
        return record


def read_file(file: Path) -> LabelSetRequest:
    """The body of an upload as JSON, or class names, one a line. Raises `NotFound` if it is neither."""
    try:
        text = file.read_text(encoding="utf-8")
        if text.lstrip().startswith("{"):
            return LabelSetRequest.model_validate_json(text)
        return LabelSetRequest(classes=[line.strip() for line in text.splitlines() if line.strip()])
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise NotFound(f"{file} holds no label set: {error}") from error
