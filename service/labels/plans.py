"""From a record to what serves it: the class state that is wanted, and those that stand in for it until it is there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from adapters.auto import AUTO, Auto
from adapters.base import Adapter, ClassState, InfoValue, LabelSet, Support
from adapters.checkpoint import STATE_SCHEMA
from adapters.clip import Backbone
from adapters.errors import AdapterError
from adapters.registry import METHODS, Method
from service.class_states.flights import Snapshot, Status, Want
from service.errors import Unprocessable
from service.labels.label_limits import refused
from service.labels.records import Fit, Record, record_id
from service.security.callers import pay_class_steps
from service.security.keys import DEFAULT_TENANT

BuildAdapter = Callable[[str, Mapping[str, InfoValue]], Adapter]
"""Method name and options to adapter. Raises `AdapterError` for what does not exist."""

LoadSupport = Callable[[str, str, LabelSet], Awaitable[Support]]
"""Label set id, support digest and labels to the images of a fit."""

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What it takes to serve one label set. `name` is the method asked for. Until the state of `want` is there, the
    first of `fallbacks` that is known serves; the last is plain zero-shot. `held` is the status of a label set whose
    method cannot go on by itself; `want` is then the best that can."""

    id: str
    name: str
    want: Want
    fallbacks: tuple[Want, ...]
    held: Snapshot | None = None

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
    status: Status

    @property
    def key(self) -> str:
        """Under which this class state is found."""
        wants = (self.plan.want, *self.plan.fallbacks)
        return next((want.key for want in wants if want.adapter is self.adapter), self.plan.want.key)

    @property
    def by(self) -> str:
        """The method whose class state it is."""
        return str(self.state.info.get("chosen", self.adapter.name))

    @property
    def adapted(self) -> bool:
        return self.by != ZERO_SHOT


class Planner:
    """Remembers the plans of lately used label sets."""

    def __init__(
        self,
        backbone: Backbone,
        build: BuildAdapter,
        *,
        default_adapter: str,
        load_support: LoadSupport,
        methods: Mapping[str, Method] = METHODS,
        tenant: str = DEFAULT_TENANT,
        kept: int = 512,
    ) -> None:
        """States are kept apart by `tenant`, for whether one is there already would tell what another has uploaded."""
        self._backbone = backbone
        self._build = build
        self._default = default_adapter
        self._load_support = load_support
        self._methods = methods
        self._owner = "" if tenant == DEFAULT_TENANT else f"@{tenant}"
        self._plans: OrderedDict[object, Plan] = OrderedDict()
        self._kept = kept

    def adapter(self, name: str | None, options: Mapping[str, InfoValue]) -> Adapter:
        """Raises `Unprocessable` for what does not exist."""
        try:
            return self._build(name or self._default, options)
        except AdapterError as error:
            raise refused(error) from error

    def few_shot(self, name: str, options: Mapping[str, InfoValue]) -> Adapter:
        """An adapter for a fit; `auto` chooses among the few-shot methods."""
        if name != AUTO:
            return self.adapter(name, options)
        if options:
            raise Unprocessable("auto has no options; name a method to give some", field="options")
        offered = [method for method, facts in self._methods.items() if facts.support]
        try:
            return Auto(self._build, offered)
        except AdapterError as error:
            raise refused(error) from error

    def is_auto(self, name: str | None) -> bool:
        return (name or self._default) == AUTO

    def support_needed(self, name: str, options: Mapping[str, InfoValue] | None = None) -> int:
        """Images that every class must have; 0 for a method that learns without. A method over a `host` needs what
        the host needs."""
        if name == AUTO:
            return 1
        facts = self._methods.get(str((options or {}).get("host", name))) or self._methods.get(name)
        return facts.support if facts is not None else 0

    def open_set(self, name: str) -> bool:
        return name not in self._methods or self._methods[name].open_set

    def known(self, key: object) -> Plan | None:
        plan = self._plans.get(key)
        if plan is not None:
            self._plans.move_to_end(key)
        return plan

    def of(self, record: Record, adapter: str | None = None) -> Plan:
        """`adapter` overrides the method of the record, whose options then do not apply."""
        fit = record.fit
        fitted = fit is not None and fit.adapter == adapter
        if adapter is not None and not fitted and (adapter == AUTO or not self.support_needed(adapter)):
            return replace(self.plain((record.id, adapter), record.labels, adapter, {}), id=record.id)
        if adapter is not None and not fitted:
            raise Unprocessable(
                f"adapter {adapter!r} learns from support images: upload them and ask for a fit", field="adapter"
            )
        key = (record.id, fit and (fit.created, fit.error, fit.former and fit.former.created))
        return self.known(key) or self._remember(key, self._of(record))

    def trial(self, record: Record, fit: Fit) -> Plan:
        """Of a fit that is no part of the record: for measuring it, not for serving the label set."""
        fallbacks = self._own_wants(record.labels, self._build(ZERO_SHOT, {}))
        return Plan(record.id, fit.adapter, self._fit_want(record, fit), tuple(fallbacks))

    def plain(self, key: object, labels: LabelSet, name: str | None, options: Mapping[str, InfoValue]) -> Plan:
        """A plan for a method that learns from the class names alone."""
        known = self.known(key)
        if known is not None:
            return known
        if self.support_needed(name or self._default, options) and not self.is_auto(name):
            raise Unprocessable(f"adapter {name!r} learns from support images: upload a label set", field="adapter")
        adapter = self.adapter(name, options)
        pay_class_steps(len(labels.classes), steps_of(adapter))
        wants = self._own_wants(labels, adapter, optional=self.is_auto(name))
        return self._remember(
            key, Plan(record_id(labels, adapter.name, options), adapter.name, wants[0], tuple(wants[1:] or wants))
        )

    def _of(self, record: Record) -> Plan:
        own = self.adapter(record.adapter, record.options)
        learns = self.support_needed(record.adapter, record.options)
        wants = self._own_wants(record.labels, own, optional=record.auto)[1 if learns else 0 :]
        fits = [fit for fit in (record.fit, record.fit and record.fit.former) if fit is not None and fit.error is None]
        wants = [*(self._fit_want(record, fit) for fit in fits), *wants]
        name, held = record.adapter, None
        if record.fit is not None:
            name = record.fit.adapter
            held = Snapshot("failed", 0.0, record.fit.error) if record.fit.error is not None else None
        elif learns:
            held = Snapshot("awaiting-support")
        return Plan(record.id, name, wants[0], tuple(wants[1:] or wants), held)

    def _own_wants(self, labels: LabelSet, adapter: Adapter, *, optional: bool = False) -> list[Want]:
        """Without support images; zero-shot last."""
        fallback = adapter if adapter.name == ZERO_SHOT else self._build(ZERO_SHOT, {})
        adapters = [adapter] if fallback is adapter else [adapter, fallback]
        return [Want(self._state_key(one, labels), labels, one, optional=optional) for one in adapters]

    def _fit_want(self, record: Record, fit: Fit) -> Want:
        adapter = self.few_shot(fit.adapter, fit.options)
        return Want(
            f"{self._state_key(adapter, record.labels)}:{fit.support[:32]}",
            record.labels,
            adapter,
            support=lambda: self._load_support(record.id, fit.support, record.labels),
            deadline=fit.deadline,
        )

    def _state_key(self, adapter: Adapter, labels: LabelSet) -> str:
        return f"state:{STATE_SCHEMA}:{self._backbone.fingerprint[:16]}:{adapter.version}:{labels.id}{self._owner}"

    def _remember(self, key: object, plan: Plan) -> Plan:
        self._plans[key] = plan
        self._plans.move_to_end(key)
        while len(self._plans) > self._kept:
            self._plans.popitem(last=False)
        return plan


def steps_of(adapter: Adapter) -> int:
    """Optimisation steps per class that an adaptation takes, for quotas; 0 for methods that learn nothing."""
    steps = getattr(adapter, "steps", None) or getattr(getattr(adapter, "settings", None), "steps", 0)
    return steps if isinstance(steps, int) else 0
