"""Chooses the engine of an image tower by measuring on this machine. Always ends with one: torch in fp32 needs nothing.

The first start measures, later ones remember. `docs/engines.md` says what is compared and what it takes to be chosen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch

from adapters.clip import Backbone
from adapters.engines.artefacts import Artefacts
from adapters.engines.base import REFERENCE, Decision, EngineName, Finding, ImageEngine, Kind, Precision, Tower
from adapters.engines.kinds import KINDS, Workshop, obstacle, open_engine
from adapters.engines.machine import Machine, this_machine
from adapters.engines.measuring import Bench, verdict
from adapters.engines.memory import Memory

RULES = 1
"""Goes up when thresholds or the way of measuring change: what was chosen before is then measured again."""

WORTH = 1.05
"""An engine must be so many times faster than a more exact one to be taken instead."""

NOT_TRIED = "not tried:"

EXACTNESS = {"fp32": 0, "bf16": 1, "int8": 2}

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator asks for. No candidate is begun after `seconds` of measuring."""

    engine: EngineName | Literal["auto"]
    precision: Precision | Literal["auto"]
    threads: int
    max_batch: int
    seconds: float
    folder: Path

    def admits(self, kind: Kind) -> bool:
        """torch without a word about precision is the reference, which needs no measuring."""
        if (self.engine, self.precision) == ("torch", "auto"):
            return kind == REFERENCE
        return self.engine in ("auto", kind.engine) and self.precision in ("auto", kind.precision)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """`engine` is None where the backbone's own tower runs."""

    engine: ImageEngine | None
    decision: Decision


def choose_engine(backbone: Backbone, wanted: Wanted, machine: Machine | None = None) -> Chosen:
    """Blocks for as long as measuring takes; sets the calling thread's number of torch threads. Never raises for an
    engine's sake: whatever fails is told in the decision."""
    tower = tower_of(backbone)
    if tower is None:
        return _own(backbone, wanted, "setting", "engines run image towers that were loaded in fp32 on the CPU")
    kinds = [kind for kind in KINDS if wanted.admits(kind)]
    if kinds in ([], [REFERENCE]):
        return _own(backbone, wanted, "setting", "asked for" if kinds else "there is no such engine and precision")
    torch.set_num_threads(wanted.threads)
    choice = _Choice(backbone, tower, wanted, machine or this_machine())
    chosen = attempt(lambda: choice.made(kinds))
    if isinstance(chosen, Failure):
        _log.warning("no engine could be chosen", extra={"error": chosen.text})
        return _own(backbone, wanted, "fallback", chosen.text)
    return chosen


def tower_of(backbone: Backbone) -> Tower | None:
    """None where no other engine can stand in: on other devices, in other precisions, around other models."""
    visual = backbone.image.visual
    if visual is None or backbone.device.type != "cpu" or backbone.precision != "fp32":
        return None
    pre = backbone.preprocess
    return Tower(visual, pre.mean, pre.std, pre.size, backbone.fingerprint)


def pick(findings: list[Finding]) -> Finding:
    """The most exact of those that are about as fast as the fastest that may serve."""
    able = [found for found in findings if not found.refused]
    limit = WORTH * min(found.cost for found in able)
    able.sort(key=lambda found: EXACTNESS[found.kind.precision])
    return next(found for found in able if found.cost <= limit)


class _Choice:
    def __init__(self, backbone: Backbone, tower: Tower, wanted: Wanted, machine: Machine) -> None:
        self._backbone, self._wanted, self._machine = backbone, wanted, machine
        self._memory = Memory(wanted.folder)
        self._shop = Workshop(tower, wanted.threads, Artefacts(wanted.folder))
        asked = {name: getattr(wanted, name) for name in ("engine", "precision", "threads", "max_batch")}
        self._key = machine.key(fingerprint=backbone.fingerprint, rules=RULES, **asked)

    def made(self, kinds: list[Kind]) -> Chosen:
        blocked = [self._blocked(kind) for kind in kinds]
        able = [found.kind for found in blocked if not found.refused]
        if able in ([], [REFERENCE]):
            decision = _decision(self._wanted, REFERENCE, "setting", "no other engine can run here")
            return Chosen(None, replace(decision, findings=tuple(found for found in blocked if found.refused)))
        known = self._memory.recall(self._key)
        if known is not None:
            reopened = attempt(lambda: self._opened(known))
            if not isinstance(reopened, Failure):
                return reopened
            _log.warning("the engine of the last start does not open; measuring again", extra={"error": reopened.text})
            self._memory.forget(self._key)
        decision = self._measured(blocked)
        hasty = any(found.refused.startswith(NOT_TRIED) for found in decision.findings)
        if hasty and Kind(decision.engine, decision.precision) == REFERENCE:  # type: ignore[arg-type]  # of a kind
            return self._opened(decision)  # a moment without time should not keep later starts from finding more
        return self._opened(self._memory.keep(self._key, decision))

    def _blocked(self, kind: Kind) -> Finding:
        return Finding(kind, refused=obstacle(kind, self._machine, asked_for=self._wanted.precision == kind.precision))

    def _opened(self, decision: Decision, probes: torch.Tensor | None = None) -> Chosen:
        kind = next(kind for kind in KINDS if (kind.engine, kind.precision) == (decision.engine, decision.precision))
        return Chosen(None if kind == REFERENCE else open_engine(kind, self._shop, probes), decision)

    def _measured(self, blocked: list[Finding]) -> Decision:
        began = time.monotonic()
        own = open_engine(REFERENCE, self._shop)
        bench = Bench.of(self._backbone, own, max_batch=self._wanted.max_batch, threads=self._wanted.threads)
        findings = [self._tried(found, bench, began) for found in blocked if found.kind != REFERENCE]
        asked = self._wanted.admits(REFERENCE) or all(found.refused for found in findings)
        best = pick([bench.reference, *findings] if asked else findings)
        seconds = time.monotonic() - began
        _log.info("engines measured", extra={"chosen": str(best.kind), "seconds": round(seconds, 1)})
        decision = _decision(self._wanted, best.kind, "measured", _reason(best, bench.reference, findings))
        return replace(decision, batch=bench.batch, findings=(bench.reference, *findings))

    def _tried(self, found: Finding, bench: Bench, began: float) -> Finding:
        if found.refused:
            return found
        if time.monotonic() - began > self._wanted.seconds:
            return replace(found, refused=f"{NOT_TRIED} the {self._wanted.seconds:g} s for choosing were over")
        kind = found.kind
        measured = attempt(lambda: bench.finding(kind, open_engine(kind, self._shop, bench.probes.pixels_P3SS)))
        if isinstance(measured, Failure):
            return replace(found, refused=measured.text)
        return replace(measured, refused=verdict(measured))


def _reason(best: Finding, reference: Finding, findings: list[Finding]) -> str:
    able = sum(not found.refused for found in findings)
    if best.kind == REFERENCE:
        return f"of {len(findings)} others {able} may serve, and none is faster" if able else "no other may serve"
    return f"{reference.cost / best.cost:.1f} times as fast as torch fp32, and agrees with it"


def _decision(wanted: Wanted, kind: Kind, source: Literal["setting", "measured", "fallback"], reason: str) -> Decision:
    return Decision(kind.engine, kind.precision, wanted.threads, source, reason)


def _own(backbone: Backbone, wanted: Wanted, source: Literal["setting", "fallback"], reason: str) -> Chosen:
    return Chosen(None, Decision("torch", backbone.precision, wanted.threads, source, reason))


@dataclass(frozen=True, slots=True)
class Failure:
    text: str


def attempt(make: Callable[[], T]) -> T | Failure:
    try:
        return make()
    except Exception as error:  # engines raise what they like, and none of it may keep the service from starting
        return Failure(f"{type(error).__name__}: {(str(error).strip() or 'without a word').splitlines()[0][:200]}")
