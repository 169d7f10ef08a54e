"""The caller of the running request, as everything behind the door sees it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from service.security.keys import DEFAULT_TENANT, SCOPES, Scope
from service.security.rates import Meter

IMAGES = "images"
CLASS_STEPS = "class-steps"


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """`id` is the key's, never its secret."""

    id: str
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[Scope] = frozenset(SCOPES)
    meters: Mapping[str, Meter] = field(default_factory=dict)

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def pay(self, unit: str, count: int) -> None:
        """Raises `RateExceeded` when that is more than is left of the key's quota."""
        meter = self.meters.get(unit)
        if meter is not None and count > 0:
            meter.take(count)


LOCAL = Caller("local")
"""Everybody, where no keys are asked for; and the service itself."""

UNKNOWN = Caller("unknown", scopes=frozenset())
"""Whoever asks without a key for what needs none, and whoever is turned away."""

NAMELESS = (LOCAL, UNKNOWN)


def caller_facts(state: Mapping[str, object]) -> dict[str, str]:
    """For logs and traces: key id and tenant of the caller in a request's state; nothing of who has no key."""
    caller = state.get("caller")
    if not isinstance(caller, Caller) or caller in NAMELESS:
        return {}
    return {"key": caller.id, "tenant": caller.tenant}


current_caller: ContextVar[Caller] = ContextVar("current_caller", default=LOCAL)


def pay_images(count: int) -> None:
    """Charges the caller of the running request before its images are decoded."""
    current_caller.get().pay(IMAGES, count)


def pay_class_steps(classes: int, steps: int) -> None:
    """Charges the caller of the running request before an adaptation of `classes` x `steps` is begun for it. Plain
    text features count as one step."""
    current_caller.get().pay(CLASS_STEPS, classes * max(1, steps))
