"""Compares methods on labelled image sets: every method, every set, every seed, from the same image features."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from adapters.base import ClassState, InfoValue, LabelSet, cosine_logits
from adapters.checkpoint import SourcePrompts
from adapters.clip import Backbone
from adapters.evaluation.datasets import FeatureSet
from adapters.evaluation.metrics import Score, score
from adapters.registry import create_adapter

Method = Callable[[LabelSet, int], ClassState]
"""Label set and seed to class state."""


@dataclass(frozen=True, slots=True)
class Result:
    """One method on one set with one seed. `seconds` is what making the class state took."""

    method: str
    set_name: str
    seed: int
    score: Score
    seconds: float


def compare(
    sets: Sequence[FeatureSet], methods: Mapping[str, Method], *, seeds: Sequence[int] = (0, 1, 2)
) -> Iterator[Result]:
    """Results as they come, set by set."""
    for data in sets:
        labels = LabelSet.of(*data.classes)
        for name, method in methods.items():
            for seed in seeds:
                started = time.perf_counter()
                state = method(labels, seed)
                seconds = time.perf_counter() - started
                logits_NC = cosine_logits(data.features_ND, state)
                yield Result(name, data.name, seed, score(logits_NC, data.labels_N), seconds)


def served(name: str, backbone: Backbone, options: Mapping[str, InfoValue] | None = None) -> Method:
    """An adapter of the registry; its `seed` option, where it has one, is the seed of the comparison."""
    fixed = dict(options or {})

    def method(labels: LabelSet, seed: int) -> ClassState:
        seeded = {"seed": seed} if name == "self-tpt" else {}
        return create_adapter(name, backbone, {**fixed, **seeded}).adapt(labels, backbone)

    return method


def from_source(
    backbone: Backbone, prompts: Mapping[int, SourcePrompts | None], options: Mapping[str, InfoValue] | None = None
) -> Method:
    """Self-TPT from the source prompts of the same seed (None: from the template's context)."""

    def method(labels: LabelSet, seed: int) -> ClassState:
        return served("self-tpt", replace(backbone, source=prompts[seed]), options)(labels, seed)

    return method
