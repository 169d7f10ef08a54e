"""Uploaded class names to a `LabelSet`, within limits. Cheap checks only: nothing here runs a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.base import ClassName, LabelSet
from adapters.clip import Backbone
from adapters.errors import AdapterError
from service.errors import LimitExceeded, Unprocessable

THREAD_FROM = 256
"""Classes from which the token check leaves the event loop."""


@dataclass(frozen=True, slots=True)
class LabelLimits:
    max_classes: int
    max_name_characters: int
    max_templates: int
    max_descriptions: int

    def check(self, labels: LabelSet) -> None:
        self._count("max_classes", len(labels.classes), "classes")
        self._count("max_templates", len(labels.templates), "templates")
        for index, entry in enumerate(labels.classes):
            self._count("max_descriptions", len(entry.descriptions), f"classes[{index}].descriptions")
            self._count("max_descriptions", len(entry.aliases), f"classes[{index}].aliases")
            self._lengths((entry.name, *entry.aliases, *entry.descriptions), f"classes[{index}]")
        self._lengths(labels.templates, "templates")

    def count_classes(self, count: int, field: str) -> None:
        """Before anything is done per class."""
        self._count("max_classes", count, field)

    def _count(self, limit: str, actual: int, field: str) -> None:
        allowed: int = getattr(self, limit)
        if actual > allowed:
            raise LimitExceeded(limit, allowed, actual=actual, field=field)

    def _lengths(self, texts: Sequence[str], field: str) -> None:
        self._count("max_name_characters", max(map(len, texts), default=0), field)


def label_set(classes: Sequence[ClassName], templates: Sequence[str], limits: LabelLimits) -> LabelSet:
    limits.count_classes(len(classes), "classes")
    try:
        labels = LabelSet(tuple(classes), tuple(templates))
    except AdapterError as error:
        raise refused(error) from error
    limits.check(labels)
    return labels


async def check_tokens(labels: LabelSet, backbone: Backbone) -> None:
    """Raises `Unprocessable` when a text does not fit the context of the text tower."""
    try:
        if len(labels.classes) >= THREAD_FROM:
            await asyncio.to_thread(backbone.text.check, labels)
        else:
            backbone.text.check(labels)
    except AdapterError as error:
        raise refused(error) from error


def refused(error: AdapterError) -> Unprocessable:
    """The service's word for a label set, method or option that an adapter refuses."""
    return Unprocessable(str(error), field=getattr(error, "field", None))
