"""Images of one batch against their class states: the best classes of each, best first. Runs on the device thread.

Tensor suffixes: B images, C classes, D joint embedding width, S image side, V views, K best classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from adapters.base import Adapter, ClassState, ImageAdapter, ImageNeeds, cosine_logits, independent_logits
from adapters.clip import Backbone
from service.compute.work_queue import ANYBODY, Asker

ScoreKind = Literal["softmax", "independent"]

Kind = tuple[ImageNeeds, bool]
"""What may share a batch: the needs, and whether the images come as features."""

Ranked = tuple[list[int], list[float], list[float]]
"""Rows, scores and cosines."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageJob:
    """One image to be scored against one class state: uint8 pixels [3, S, S], or [V, 3, S, S] for V > 1 views; or in
    their place the unit features, float32 [D], of an image that the tower has seen before. `adapter` is asked for the
    scores where `needs.scored_by` says so; `caller` is what tracing knows the request by."""

    pixels: Tensor
    state: ClassState
    needs: ImageNeeds
    top_k: int
    scores: ScoreKind = "softmax"
    adapter: Adapter | None = None
    since: float = field(default_factory=time.perf_counter)
    caller: object = None
    asker: Asker = ANYBODY

    @property
    def embedded(self) -> bool:
        """Whether `pixels` are features."""
        return self.pixels.dtype != torch.uint8

    @property
    def kind(self) -> Kind:
        return self.needs, self.embedded


@torch.no_grad()
def score_batch(features_BD: Tensor, jobs: Sequence[ImageJob]) -> list[Ranked | None]:
    """Each image against its own class weights; images of one state share a product. None where not finite."""

    def scored(places: list[int]) -> list[Ranked | None]:
        rows_BD = features_BD if len(places) == len(jobs) else features_BD[places]
        return rank(rows_BD, [jobs[place] for place in places])

    return _grouped(jobs, lambda job: (id(job.state), job.scores), scored)


def own_scores(jobs: Sequence[ImageJob], backbone: Backbone) -> list[Ranked | None]:
    """Images whose method scores them itself; those of one state go together."""

    def scored(places: list[int]) -> list[Ranked | None]:
        members = [jobs[place] for place in places]
        adapter, state = members[0].adapter, members[0].state
        assert isinstance(adapter, ImageAdapter)
        logits_BC = adapter.logits(torch.stack([job.pixels for job in members]), state, backbone).detach()
        return _best(logits_BC.softmax(dim=1), logits_BC / state.logit_scale, members)

    return _grouped(jobs, lambda job: id(job.state), scored)


def rank(features_BD: Tensor, jobs: Sequence[ImageJob]) -> list[Ranked | None]:
    """The jobs share one class state and one kind of scores."""
    state = jobs[0].state
    logits_BC = cosine_logits(features_BD, state)
    independent = jobs[0].scores == "independent"
    scores_BC = independent_logits(features_BD, state).sigmoid() if independent else logits_BC.softmax(dim=1)
    return _best(scores_BC, logits_BC / state.logit_scale, jobs)


def _best(scores_BC: Tensor, cosines_BC: Tensor, jobs: Sequence[ImageJob]) -> list[Ranked | None]:
    best_BK = scores_BC.topk(min(max(job.top_k for job in jobs), scores_BC.shape[1]), dim=1)
    rows, scores = best_BK.indices.tolist(), best_BK.values.tolist()
    cosines = cosines_BC.gather(1, best_BK.indices).tolist()
    finite = cosines_BC.isfinite().all(dim=1).tolist()
    return [
        (rows[i][: job.top_k], scores[i][: job.top_k], cosines[i][: job.top_k]) if finite[i] else None
        for i, job in enumerate(jobs)
    ]


def _grouped(
    jobs: Sequence[ImageJob],
    kind: Callable[[ImageJob], Hashable],
    scored: Callable[[list[int]], list[Ranked | None]],
) -> list[Ranked | None]:
    groups: dict[Hashable, list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(kind(job), []).append(place)
    outcomes: list[Ranked | None] = [None] * len(jobs)
    for places in groups.values():
        for place, ranked in zip(places, scored(places), strict=True):
            outcomes[place] = ranked
    return outcomes
