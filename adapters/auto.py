"""`auto` with support images: which few-shot methods to try, which result to keep, and when none may be served.

Tensor suffixes: N support images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from adapters.base import (
    Adapter,
    ClassState,
    ImageNeeds,
    InfoValue,
    LabelSet,
    Progress,
    Support,
    content_hash,
    needs_of,
)
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged, BackboneError
from adapters.learning.fitting import checked_support
from adapters.scoring import state_logits

AUTO = "auto"
ZERO_SHOT = "zero-shot"
MEASURE_FROM = 4
"""Images per class from which the held-out ones can tell methods apart."""

IMAGES_AT_ONCE = 16

Build = Callable[[str, Mapping[str, InfoValue]], Adapter]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method with the options that it is tried with."""

    method: str
    options: tuple[tuple[str, InfoValue], ...] = ()


KNOWN = (Candidate("dapt", (("visual_prompts", 0),)), Candidate("coop"))
"""In order of trust; a tie keeps the earlier one. None of them touches the image tower, so that images of all label
sets go on sharing its passes; who wants more than that names a method."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The share of the support images that a candidate's state gets right: of all of them, and of the held-out ones
    (None when nothing was held out), beside plain zero-shot."""

    name: str
    seen: float
    seen_zero_shot: float
    heldout: float | None = None
    heldout_zero_shot: float | None = None

    @property
    def loses(self) -> bool:
        """To plain zero-shot, on the images it was given."""
        held = self.heldout is not None and self.heldout_zero_shot is not None
        return self.seen < self.seen_zero_shot or (held and self.heldout < self.heldout_zero_shot)  # type: ignore[operator]  # both are numbers then


def candidates(fewest: int, offered: Collection[str]) -> tuple[Candidate, ...]:
    """What is worth trying with `fewest` images in the smallest class."""
    usable = tuple(one for one in KNOWN if one.method in offered)
    return usable[:1] if fewest < MEASURE_FROM else usable


def verdict(trials: Sequence[Trial], fewest: int) -> tuple[int | None, str]:
    """The place of the trial to serve, or None for plain zero-shot, and why."""
    shots = f"{fewest} or more images per class"
    if not trials:
        return None, f"{shots}, but no few-shot method could be fitted"
    best = max(range(len(trials)), key=lambda place: (_measure(trials[place]), -place))
    one = trials[best]
    if one.loses:
        return None, f"{one.name} lost to zero-shot on the support images ({_figures(one)})"
    others = f", the best of {', '.join(trial.name for trial in trials)}" if len(trials) > 1 else ""
    return best, f"{shots}: {one.name}{others} ({_figures(one)})"


class Auto:
    """Fits the candidates and serves the best one, or plain zero-shot when that is better. For the choice without
    support images see the registry."""

    name = AUTO

    def __init__(self, build: Build, offered: Collection[str]) -> None:
        """`build` makes adapters of the methods that are `offered`."""
        self._build = build
        self._offered = offered
        self._adapters = {one: build(one.method, dict(one.options)) for one in candidates(MEASURE_FROM, offered)}
        self.version = content_hash([AUTO, 1, [adapter.version for adapter in self._adapters.values()]])[:16]

    @property
    def steps(self) -> int:
        """Optimisation steps of everything that is tried."""
        return sum(getattr(getattr(adapter, "settings", None), "steps", 0) for adapter in self._adapters.values())

    def needs(self, state: ClassState) -> ImageNeeds:
        return needs_of(state)

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        backbone.text.check(labels)
        support = checked_support(support, labels)
        fewest = int(support.per_class(len(labels.classes)).min())
        tried = candidates(fewest, self._offered)
        plain = self._build(ZERO_SHOT, {})
        zero_shot = plain.adapt(labels, backbone, support)
        zero_shot_top1 = _top1(zero_shot, plain, support, backbone, progress)
        states: list[ClassState] = []
        trials: list[Trial] = []
        for place, one in enumerate(tried):
            adapter, told = self._adapters[one], _part(progress, place, len(tried))
            try:
                state = adapter.adapt(labels, backbone, support, told)
            except (AdaptationDiverged, BackboneError):
                continue  # the others, or zero-shot, serve
            states.append(state)
            trials.append(_trial(adapter, state, _top1(state, adapter, support, backbone, told), zero_shot_top1))
        best, reason = verdict(trials, fewest)
        return self._signed(zero_shot if best is None else states[best], trials, best, reason)

    def _signed(self, state: ClassState, trials: Sequence[Trial], best: int | None, reason: str) -> ClassState:
        info: dict[str, InfoValue] = {**state.info, "chosen": ZERO_SHOT if best is None else state.adapter}
        info["auto_reason"] = reason
        for trial in trials if best is None else [trials[best]]:
            info |= {"support_top1": trial.seen, "support_top1_zero_shot": trial.seen_zero_shot}
        return replace(state, adapter=self.name, version=self.version, info=info)


def _trial(adapter: Adapter, state: ClassState, seen: float, seen_zero_shot: float) -> Trial:
    heldout, zero_shot = (state.info.get(name) for name in ("heldout_top1", "heldout_top1_zero_shot"))
    known = isinstance(heldout, (int, float)) and isinstance(zero_shot, (int, float))
    figures = (float(heldout), float(zero_shot)) if known else (None, None)  # type: ignore[arg-type]  # both are numbers
    return Trial(adapter.name, seen, seen_zero_shot, *figures)


def _measure(trial: Trial) -> float:
    return trial.seen if trial.heldout is None else trial.heldout


def _figures(trial: Trial) -> str:
    if trial.heldout is not None and trial.heldout_zero_shot is not None:
        return f"{trial.heldout:.1%} of the held-out images, zero-shot {trial.heldout_zero_shot:.1%}"
    return f"{trial.seen:.1%} of all of them, zero-shot {trial.seen_zero_shot:.1%}"


def _top1(
    state: ClassState, adapter: Adapter, support: Support, backbone: Backbone, progress: Progress | None
) -> float:
    """Share of the support images that are recognised."""
    right = 0
    for start in range(0, len(support), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        logits_NC: Tensor = state_logits(support.pixels[part], state, adapter, backbone)
        right += int((logits_NC.argmax(dim=1) == support.labels[part]).sum())
        if progress is not None:
            progress(0.0)  # lets waiting images through; the reported fraction never goes back
    return round(right / len(support), 4)


def _part(progress: Progress | None, place: int, parts: int) -> Progress | None:
    return None if progress is None else lambda fraction: progress((place + fraction) / parts)
