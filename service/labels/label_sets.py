"""Label sets as callers see them: uploaded, found, served with the best class state there is, watched, deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from adapters.base import ClassName, ClassState, InfoValue
from adapters.clip import Backbone
from adapters.errors import AdapterError
from service.class_states.flights import Flight, Snapshot, Status, settled_flight
from service.class_states.states import States
from service.errors import (
    ComputeError,
    DeadlineExceeded,
    NotFound,
    NotReady,
    Overloaded,
    ServiceError,
    ShuttingDown,
    Unavailable,
    Unprocessable,
)
from service.labels.label_limits import LabelLimits, check_tokens, label_set, refused
from service.labels.plans import ZERO_SHOT, Plan, Planner, Served, steps_of
from service.labels.records import Record, RecordBook, record_id
from service.labels.support import SupportShelves
from service.security.callers import pay_class_steps


class LabelSets:
    """Used on the event loop only."""

    def __init__(
        self,
        records: RecordBook,
        states: States,
        *,
        backbone: Backbone,
        planner: Planner,
        shelves: SupportShelves,
        limits: LabelLimits,
    ) -> None:
        self.records = records
        self.states = states
        self.planner = planner
        self.shelves = shelves
        self._backbone = backbone
        self._limits = limits

    async def upload(
        self,
        classes: Sequence[ClassName],
        templates: Sequence[str] = (),
        *,
        adapter: str | None = None,
        options: Mapping[str, InfoValue] | None = None,
        name: str | None = None,
    ) -> tuple[Record, bool]:
        """The record, durable, and whether it is new. Its adaptation is under way when this returns, unless its
        method learns from support images."""
        labels = label_set(classes, templates, self._limits)
        method = self.planner.adapter(adapter, options or {})
        await check_tokens(labels, self._backbone)
        one = record_id(labels, method.name, options or {})
        self.states.admit()
        if await self.records.find(one) is None:
            pay_class_steps(len(labels.classes), steps_of(method))
        auto = self.planner.is_auto(adapter)
        record, new = await self.records.add(
            Record(one, labels, method.name, options or {}, name, time.time(), auto=auto)
        )
        self.states.ensure(self.plan(record).want)
        return record, new

    async def find(self, ref: str) -> Record:
        record = await self.records.find(ref)
        if record is None:
            raise NotFound(f"there is no label set {ref!r}", label_set=ref)
        return record

    async def remove(self, ref: str) -> None:
        """The record goes last: a deletion that was cut short can be asked for again."""
        record = await self.find(ref)
        await self.shelves.drop(record.id)
        await self.records.remove(record)
        with suppress(Unprocessable):  # its method is not served here, so there is nothing to forget
            plan = self.plan(record)
            for want in {plan.want, *plan.fallbacks[:-1]}:
                await self.states.forget(want.key)

    def plan(self, record: Record, adapter: str | None = None) -> Plan:
        return self.planner.of(record, adapter)

    async def inline(self, names: Sequence[str], adapter: str | None = None, templates: Sequence[str] = ()) -> Plan:
        """A plan for class names that come with the request and leave no record."""
        self._limits.count_classes(len(names), "labels")
        key = (tuple(names), adapter, tuple(templates))
        known = self.planner.known(key)
        if known is not None:
            return known
        labels = label_set([ClassName.of(name) for name in names], tuple(templates), self._limits)
        await check_tokens(labels, self._backbone)
        return self.planner.plain(key, labels, adapter, {})

    async def serve(self, plan: Plan, *, wait: float = 0.0) -> Served:
        """The wanted state when it is there, or comes within `wait` seconds; else the best that is there."""
        held = plan.held.status if plan.held is not None else None
        state = self.states.hot(plan.want.key)
        if state is not None:
            return Served(plan, state, plan.adapter, held or "ready")
        flight = self.states.ensure(plan.want)
        await flight.answered()
        if plan.adapter.name == ZERO_SHOT:
            return Served(plan, await self._settled(flight), plan.adapter, held or "ready")
        if wait and not flight.final:
            await flight.settled(wait)
        if flight.state is not None:
            return Served(plan, flight.state, plan.adapter, held or "ready")
        for want in plan.fallbacks[:-1]:
            known = await self.states.load(want)
            if known is not None:
                return Served(plan, known, want.adapter, held or _status(flight))
        return await self.zero_shot(plan, held or _status(flight))

    async def zero_shot(self, plan: Plan, status: Status = "ready") -> Served:
        """Plain zero-shot, computed if need be."""
        want = plan.fallbacks[-1]
        state = self.states.hot(want.key) or await self._settled(self.states.ensure(want))
        return Served(plan, state, want.adapter, status)

    def flight(self, record: Record) -> Flight:
        plan = self.plan(record)
        return self.states.ensure(plan.want) if plan.held is None else settled_flight(plan.want, held=plan.held)

    async def snapshot(self, record: Record) -> Snapshot:
        plan = self.plan(record)
        return plan.held or await self.states.known(plan.want)

    def seconds_left(self, record: Record, snapshot: Snapshot) -> float | None:
        """An estimate of when the label set is ready: 0 when it is, None if nobody can tell."""
        if snapshot.status not in {"queued", "adapting"}:
            return 0.0 if snapshot.status == "ready" else None
        return self.states.seconds_left(self.plan(record).want, snapshot)

    async def resume(self) -> int:
        """Adapts, one after the other, every record that has no class state. Returns how many were begun."""
        after: str | None = ""
        begun = 0
        while after is not None:
            records, after = await self.records.page(after=after, limit=100)
            for record in records:
                begun += await self._resume(record)
        return begun

    async def _resume(self, record: Record) -> bool:
        try:
            plan = self.plan(record)
        except ServiceError:
            return False  # the method it asks for is not served here; asking for it says so
        if plan.held is not None or (await self.states.known(plan.want)).status != "queued":
            return False
        flight = self.states.ensure(plan.want)
        await flight.settled()
        await self.note_outcome(record, flight)
        return True

    async def note_outcome(self, record: Record, flight: Flight) -> None:
        """Writes down that a fit failed, so that it is not tried again unless somebody asks for it."""
        fit = record.fit
        if fit is None or not isinstance(flight.failure, (AdapterError, ComputeError, DeadlineExceeded)):
            return
        failed = replace(fit, error=str(flight.failure))
        await self.records.change(record.id, lambda now: replace(now, fit=failed) if now.fit == fit else now)

    async def _settled(self, flight: Flight) -> ClassState:
        """Waits to the end, for the answer cannot be given without this state. Raises what the adapter raised."""
        await flight.settled()
        if flight.state is not None:
            return flight.state
        if isinstance(flight.failure, AdapterError):
            raise refused(flight.failure) from flight.failure
        raise flight.failure or (ShuttingDown() if flight.released else NotReady())


def _status(flight: Flight) -> Status:
    """A flight that the service itself turned away (too many, or going down) is as good as still queued."""
    return "queued" if isinstance(flight.failure, (Overloaded, Unavailable)) else flight.snapshot.status
