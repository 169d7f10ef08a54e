"""Which methods stand in a table: names of the registry with options, and the controls beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

from torch.nn import functional as F

from adapters.base import PLAIN, Adapter, ClassState, ImageNeeds, InfoValue, LabelSet, Progress, Support
from adapters.clip import Backbone
from adapters.registry import METHODS, create_adapter

ENSEMBLED = 4
"""Prompts in the ensemble control: as many as Self-TPT has views."""


class Contender(Protocol):
    """A row of the table: makes an adapter for a backbone and a seed."""

    @property
    def label(self) -> str: ...
    @property
    def learns_from_images(self) -> bool: ...
    @property
    def open_set(self) -> bool: ...
    @property
    def seeded(self) -> bool: ...
    def adapter(self, backbone: Backbone, seed: int) -> Adapter: ...


@dataclass(frozen=True, slots=True)
class Variant:
    """A method of the registry with some of its options set."""

    label: str
    method: str
    options: Mapping[str, InfoValue] = field(default_factory=dict)

    @property
    def learns_from_images(self) -> bool:
        return METHODS[self.method].support > 0

    @property
    def open_set(self) -> bool:
        return METHODS[self.method].open_set

    @property
    def seeded(self) -> bool:
        return "seed" in _options(self.method)

    def adapter(self, backbone: Backbone, seed: int) -> Adapter:
        """As it would be served: few-shot methods keep some of their images apart unless the options say otherwise."""
        chosen: dict[str, InfoValue] = dict(self.options)
        if self.seeded:
            chosen.setdefault("seed", seed)
        return create_adapter(self.method, backbone, chosen)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The mean of the class weights of one text-only method, fitted with several seeds."""

    label: str
    member: Variant
    count: int = ENSEMBLED

    learns_from_images = True
    open_set = True
    seeded = True

    def adapter(self, backbone: Backbone, seed: int) -> Adapter:
        return EnsembleAdapter([self.member.adapter(backbone, self.count * seed + k) for k in range(self.count)])


class EnsembleAdapter:
    """Fits its members one after the other and averages their class weights."""

    name = "ensemble"

    def __init__(self, members: Sequence[Adapter]) -> None:
        self.members = tuple(members)
        self.version = "+".join(member.version for member in members)

    def needs(self, state: ClassState) -> ImageNeeds:
        return PLAIN

    def adapt(
        self, labels: LabelSet, backbone: Backbone, support: Support | None = None, progress: Progress | None = None
    ) -> ClassState:
        states = [member.adapt(labels, backbone, support, progress) for member in self.members]
        mean_CD = sum((state.weights for state in states[1:]), states[0].weights)
        parts = {f"member{k}.{name}": value for k, state in enumerate(states) for name, value in state.extras.items()}
        return replace(states[0], weights=F.normalize(mean_CD, dim=-1), extras=parts)

    def served(
        self, state: ClassState, labels: LabelSet, serve: Callable[[Adapter, ClassState], ClassState]
    ) -> ClassState:
        """Other classes from the contexts that the members learnt; `serve` does it for one member."""
        states = []
        for k, member in enumerate(self.members):
            head = f"member{k}."
            own = {name.removeprefix(head): t for name, t in state.extras.items() if name.startswith(head)}
            states.append(serve(member, replace(state, extras=own)))
        mean_CD = sum((other.weights for other in states[1:]), states[0].weights)
        return replace(states[0], weights=F.normalize(mean_CD, dim=-1))


@dataclass(frozen=True, slots=True)
class Trained:
    """A function from label set and seed to class state, as a row of a table."""

    label: str
    method: Callable[[LabelSet, int], ClassState]

    learns_from_images = False
    open_set = True
    seeded = True

    def adapter(self, backbone: Backbone, seed: int) -> Adapter:
        return _Called(self.label, self.method, seed)


class _Called:
    def __init__(self, label: str, method: Callable[[LabelSet, int], ClassState], seed: int) -> None:
        self.name, self.version = label, f"{label}/{seed}"
        self._method, self._seed = method, seed

    def needs(self, state: ClassState) -> ImageNeeds:
        return PLAIN

    def adapt(
        self, labels: LabelSet, backbone: Backbone, support: Support | None = None, progress: Progress | None = None
    ) -> ClassState:
        return self._method(labels, self._seed)


SINGLE = Variant("single template", "zero-shot")
EIGHTY = Variant("80-template ensemble", "zero-shot", {"ensemble": True})


def _options(method: str) -> set[str]:
    return {entry.name for entry in fields(METHODS[method].settings)}
