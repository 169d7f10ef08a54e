"""Label sets as callers see them: uploaded, found, served with the best class state there is, watched, deleted."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from adapters.base import Adapter, ClassName, ClassState, InfoValue, LabelSet
from adapters.checkpoint import STATE_SCHEMA
from adapters.clip import Backbone
from adapters.errors import AdapterError
from service.class_states.flights import Flight, Snapshot, Status, Want
from service.class_states.states import States
from service.errors import InternalError, NotFound, NotReady, ServiceError, ShuttingDown
from service.label_limits import LabelLimits, check_tokens, label_set, refused
from service.records import Record, RecordBook, record_id

BuildAdapter = Callable[[str, Mapping[str, InfoValue]], Adapter]
"""Method name and options to adapter. Raises `AdapterError` for what does not exist."""

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What it takes to serve one label set with one method. `fallback` serves until `want` is there."""

    id: str
    want: Want
    fallback: Want

    @property
    def adapter(self) -> Adapter:
        return self.want.adapter

    @property
    def labels(self) -> LabelSet:
        return self.want.labels


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """The class state that a request is scored with, and what is to be said of it."""

    plan: Plan
    state: ClassState
    adapter: Adapter
    adapted: bool
    status: Status


class LabelSets:
    """Used on the event loop only."""

    def __init__(
        self,
        records: RecordBook,
        states: States,
        *,
        backbone: Backbone,
        build: BuildAdapter,
        default_adapter: str,
        limits: LabelLimits,
        plans_kept: int = 512,
    ) -> None:
        self.records = records
        self.states = states
        self._backbone = backbone
        self._build = build
        self._default = default_adapter
        self._limits = limits
        self._plans: OrderedDict[object, Plan] = OrderedDict()
        self._plans_kept = plans_kept

    async def upload(
        self,
        classes: Sequence[ClassName],
        templates: Sequence[str] = (),
        *,
        adapter: str | None = None,
        options: Mapping[str, InfoValue] | None = None,
        name: str | None = None,
    ) -> tuple[Record, bool]:
        """The record, durable, and whether it is new. Its adaptation is under way when this returns."""
        labels = label_set(classes, templates, self._limits)
        method = self._adapter(adapter, options or {})
        await check_tokens(labels, self._backbone)
        one = record_id(labels, method.name, options or {})
        self.states.admit()
        record, new = await self.records.add(Record(one, labels, method.name, options or {}, name, time.time()))
        self.states.ensure(self.plan(record).want)
        return record, new

    async def find(self, ref: str) -> Record:
        record = await self.records.find(ref)
        if record is None:
            raise NotFound(f"there is no label set {ref!r}", label_set=ref)
        return record

    async def remove(self, ref: str) -> None:
        record = await self.find(ref)
        await self.records.remove(record)
        await self.states.forget(self.plan(record).want.key)

    def plan(self, record: Record, adapter: str | None = None) -> Plan:
        """`adapter` overrides the record's method, whose options then do not apply."""
        name, options = (record.adapter, record.options) if adapter is None else (adapter, {})
        return self._planned((record.id, name), lambda: (record.labels, self._adapter(name, options), options))

    async def inline(self, names: Sequence[str], adapter: str | None = None) -> Plan:
        """A plan for class names that come with the request and leave no record."""
        self._limits.count_classes(len(names), "labels")
        key = (tuple(names), adapter)
        if key in self._plans:
            return self._plans[key]
        labels = label_set([ClassName.of(name) for name in names], (), self._limits)
        await check_tokens(labels, self._backbone)
        return self._planned(key, lambda: (labels, self._adapter(adapter, {}), {}))

    async def serve(self, plan: Plan, *, wait: float = 0.0) -> Served:
        """The adapted state when it is there, or comes within `wait` seconds; else the zero-shot state."""
        state = self.states.hot(plan.want.key)
        if state is not None:
            return _served(plan, state, "ready")
        flight = self.states.ensure(plan.want)
        await flight.answered()
        if plan.adapter.name == ZERO_SHOT:
            return _served(plan, await self._settled(flight), "ready")
        if wait and not flight.final:
            await flight.settled(wait)
        if flight.state is not None:
            return _served(plan, flight.state, "ready")
        fallback = self.states.hot(plan.fallback.key) or await self._settled(self.states.ensure(plan.fallback))
        return Served(plan, fallback, plan.fallback.adapter, adapted=False, status=_status(flight))

    def flight(self, record: Record) -> Flight:
        return self.states.ensure(self.plan(record).want)

    async def snapshot(self, record: Record) -> Snapshot:
        return await self.states.known(self.plan(record).want)

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
            want = self.plan(record).want
        except ServiceError:
            return False  # the method it asks for is not served here; asking for it says so
        if (await self.states.known(want)).status != "queued":
            return False
        await self.states.ensure(want).settled()
        return True

    async def _settled(self, flight: Flight) -> ClassState:
        """Waits to the end, for the answer cannot be given without this state. Raises what the adapter raised."""
        await flight.settled()
        if flight.state is not None:
            return flight.state
        if isinstance(flight.failure, AdapterError):
            raise refused(flight.failure) from flight.failure
        raise flight.failure or (ShuttingDown() if flight.released else NotReady())

    def _adapter(self, name: str | None, options: Mapping[str, InfoValue]) -> Adapter:
        try:
            return self._build(name or self._default, options)
        except AdapterError as error:
            raise refused(error) from error

    def _planned(self, key: object, parts: Callable[[], tuple[LabelSet, Adapter, Mapping[str, InfoValue]]]) -> Plan:
        plan = self._plans.get(key)
        if plan is None:
            labels, adapter, options = parts()
            fallback = adapter if adapter.name == ZERO_SHOT else self._build(ZERO_SHOT, {})
            content = labels.id
            plan = Plan(
                record_id(labels, adapter.name, options),
                Want(self._state_key(adapter, content), labels, adapter),
                Want(self._state_key(fallback, content), labels, fallback),
            )
            self._plans[key] = plan
        self._plans.move_to_end(key)
        while len(self._plans) > self._plans_kept:
            self._plans.popitem(last=False)
        return plan

    def _state_key(self, adapter: Adapter, content: str) -> str:
        return f"state:{STATE_SCHEMA}:{self._backbone.fingerprint[:16]}:{adapter.version}:{content}"


def _status(flight: Flight) -> Status:
    """A flight that the service itself turned away (too many, or going down) is as good as still queued."""
    turned_away = isinstance(flight.failure, ServiceError) and not isinstance(flight.failure, InternalError)
    return "queued" if turned_away else flight.snapshot.status


def _served(plan: Plan, state: ClassState, status: Status) -> Served:
    return Served(plan, state, plan.adapter, adapted=plan.adapter.name != ZERO_SHOT, status=status)
