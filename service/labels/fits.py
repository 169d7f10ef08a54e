"""Few-shot fits of label sets: begun, followed, cancelled; and what adding a class means for them.

A fit is part of the record of its label set, so it goes on after a restart. Until it is ready the former fit serves,
else what the label set has without one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from adapters.auto import AUTO
from adapters.base import ClassName, InfoValue, LabelSet, Support
from service.errors import ClosedSet, LimitExceeded, NotFound, ServiceError, Unprocessable
from service.images.decode import Decoder
from service.labels.label_sets import LabelSets
from service.labels.plans import Plan, steps_of
from service.labels.records import Fit, Record
from service.labels.support import Shelf, SupportImage, SupportShelves
from service.security.callers import pay_class_steps

_log = logging.getLogger(__name__)

DECODED_TOGETHER = 16


class SupportReader:
    """The images of a fit as its method gets them: decoded as images to classify are, in label order."""

    def __init__(self, shelves: SupportShelves, decoder: Decoder) -> None:
        self._shelves = shelves
        self._decoder = decoder

    async def __call__(self, label_set: str, digest: str, labels: LabelSet) -> Support:
        entries = await self._shelves.frozen(label_set, digest)
        pixels: list[Tensor] = []
        for start in range(0, len(entries), DECODED_TOGETHER):
            part = entries[start : start + DECODED_TOGETHER]
            pixels += await asyncio.gather(*(self._pixels(label_set, row, image) for row, image in part))
        captions = tuple(image.caption for _, image in entries)
        rows = torch.tensor([row for row, _ in entries])
        return Support(torch.stack(pixels), rows, captions if any(captions) else ())

    async def _pixels(self, label_set: str, row: int, image: SupportImage) -> Tensor:
        return await self._decoder.pixels(await self._shelves.read(label_set, row, image))


class Fits:
    def __init__(self, label_sets: LabelSets, *, max_seconds: float) -> None:
        self._sets = label_sets
        self._max_seconds = max_seconds
        self._following: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(
        self,
        ref: str,
        adapter: str | None = None,
        options: Mapping[str, InfoValue] | None = None,
        deadline: float | None = None,
    ) -> tuple[Record, bool]:
        """The record, which says durably that this fit is to serve, and whether there is something left to do. A fit
        that was still running for other images or options is given up."""
        if deadline is not None and deadline > self._max_seconds:
            raise LimitExceeded("max_fit_seconds", self._max_seconds, actual=deadline, field="deadline_seconds")
        record = await self._sets.find(ref)
        name = adapter or self._usual(record)
        if options is None or (not options and name == record.adapter):
            options = record.options if name == record.adapter else {}
        self._check_method(name, options)
        self._sets.states.admit()
        async with self._lock(record.id):
            digest, shelf = await self._sets.shelves.freeze(record.id)
            check_counts(record.labels, shelf, self._sets.planner.support_needed(name, options), name)
            fit = Fit(name, options, digest, deadline or self._max_seconds, time.time())
            begun = await self._begin(record, fit)
            # Once more: another process may have tidied the list away before the record named it.
            await self._sets.shelves.freeze_these(record.id, shelf)
        return begun

    async def cancel(self, ref: str) -> None:
        """Ends a running fit and drops a finished one: what served before it serves again."""
        record = await self._sets.find(ref)
        fit, plan = record.fit, self._sets.plan(record)
        if fit is None:
            raise NotFound("this label set has no fit", label_set=ref)
        await self._sets.records.change(record.id, lambda now: replace(now, fit=fit.former) if now.fit == fit else now)
        if plan.held is None:
            await self._sets.states.forget(plan.want.key)

    async def trial(self, record: Record, adapter: str) -> Plan:
        """What it takes to measure a method on a label set. One that learns from support images is fitted to those
        that there are now; the label set goes on serving what it serves. Asking for that fit later finds it done."""
        own = self._sets.plan(record)
        if adapter == own.name and own.held is None:
            return own
        needed = self._sets.planner.support_needed(adapter)
        digest, shelf = await self._sets.shelves.freeze(record.id)
        if not needed or (adapter == AUTO and not shelf):
            return self._sets.plan(record, adapter)
        self._check_method(adapter, {})
        check_counts(record.labels, shelf, needed, adapter)
        pay_class_steps(len(record.labels.classes), steps_of(self._sets.planner.few_shot(adapter, {})))
        return self._sets.planner.trial(record, Fit(adapter, {}, digest, self._max_seconds))

    async def add_classes(self, ref: str, classes: Sequence[ClassName]) -> tuple[Record, bool]:
        """The label set with more classes at its end, and whether it is new. It takes over the name and the support
        images. Raises `ClosedSet` when the method in use serves no other classes than those it was fitted to."""
        record = await self._sets.find(ref)
        self._check_open(record)
        whole = [*record.labels.classes, *classes]
        adapter = AUTO if record.auto else record.adapter
        templates, options = record.labels.templates, record.options
        longer, new = await self._sets.upload(whole, templates, adapter=adapter, options=options)
        await self._sets.shelves.copy(record.id, longer.id)
        if record.name is not None:  # moves only now, so that nobody finds it without its images
            longer, _ = await self._sets.upload(whole, templates, adapter=adapter, options=options, name=record.name)
        return longer, new

    async def close(self) -> None:
        for task in self._following:
            task.cancel()
        if self._following:
            await asyncio.wait(self._following)

    def _usual(self, record: Record) -> str:
        """The method of the label set if it learns from images, else whichever turns out best."""
        return record.adapter if self._sets.planner.support_needed(record.adapter, record.options) else AUTO

    def _check_method(self, name: str, options: Mapping[str, InfoValue]) -> None:
        self._sets.planner.few_shot(name, options)
        if not self._sets.planner.support_needed(name, options):
            raise Unprocessable(f"adapter {name!r} does not learn from support images", field="adapter")

    def _check_open(self, record: Record) -> None:
        names = {record.adapter, record.fit.adapter if record.fit is not None else record.adapter}
        for name in sorted(names):
            if not self._sets.planner.open_set(name):
                raise ClosedSet(
                    f"adapter {name!r} is a closed set: it cannot serve a class that it was not fitted to. Upload a "
                    "label set with all classes, its support images, and fit it",
                    adapter=name,
                )

    async def _begin(self, record: Record, fit: Fit) -> tuple[Record, bool]:
        before, plan = record.fit, self._sets.plan(record)
        ready = before is not None and (await self._sets.snapshot(record)).status == "ready"
        if before is not None and before.key == fit.key and before.error is None:
            if not ready:
                self._follow(record)
            return record, not ready
        pay_class_steps(len(record.labels.classes), steps_of(self._sets.planner.few_shot(fit.adapter, fit.options)))
        former = before if ready or before is None else before.former
        fit = replace(fit, former=None if former is None else replace(former, former=None))
        changed = await self._sets.records.change(record.id, lambda now: replace(now, fit=fit))
        if changed is None:
            raise NotFound(f"there is no label set {record.id!r}", label_set=record.id)
        if before is not None and not ready and plan.held is None:
            await self._sets.states.abandon(plan.want.key)
        await self._sets.states.abandon(self._sets.plan(changed).want.key)  # a failure that still stands, too
        self._follow(changed)
        return changed, True

    def _follow(self, record: Record) -> None:
        flight = self._sets.flight(record)

        async def follow() -> None:
            await flight.settled()
            await self._sets.note_outcome(record, flight)
            await self.tidy(record)

        self._keep(follow())

    async def tidy(self, record: Record, row: int | None = None) -> None:
        """Lets go of images that neither the label set nor a fit of it has any more."""
        async with self._lock(record.id):
            now = await self._sets.records.change(record.id, lambda same: same)  # as it is in the store
            if now is not None:
                fits = [fit for fit in (now.fit, now.fit and now.fit.former) if fit is not None]
                await self._sets.shelves.tidy(record.id, {fit.support for fit in fits}, row)

    def _lock(self, label_set: str) -> asyncio.Lock:
        return self._locks.setdefault(label_set, asyncio.Lock())

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        async def logged() -> None:
            try:
                await work
            except ServiceError as error:
                _log.warning("the end of a fit was not written down", extra={"error": error.detail})

        task = asyncio.get_running_loop().create_task(logged())
        self._following.add(task)
        task.add_done_callback(self._following.discard)


def check_counts(labels: LabelSet, shelf: Shelf, needed: int, adapter: str) -> None:
    """Raises `Unprocessable` naming the first class with fewer images than the method needs."""
    for row, name in enumerate(labels.names):
        count = len(shelf.get(row, ()))
        if count < needed:
            raise Unprocessable(
                f"class {name!r} has {count} support images; adapter {adapter!r} needs at least {needed} of every "
                "class",
                field=f"support.{name}",
            )
