"""Labelled images against what a label set serves and against plain zero-shot, side by side.

Tensor suffixes: N images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import torch
from torch import Tensor

from adapters.evaluation.metrics import BINS, calibration_error
from service.compute.engine import Scores
from service.compute.image_scores import ImageScores, Question
from service.compute.work_queue import Asker
from service.errors import DeadlineExceeded, LimitExceeded, ServiceError, Unprocessable
from service.http.problems import problem_document
from service.images.inputs import Upload
from service.labels.label_sets import LabelSets
from service.labels.plans import Plan, Served
from service.security.callers import current_caller, pay_images

TOGETHER = 16
"""Images that are decoded and scored at once, so that an evaluation does not crowd out other callers."""

MATRIX_CLASSES = 200
"""Up to so many classes the confusion matrix is given whole."""

WORST_PAIRS = 100
WORST_IMAGES = 50


class EvaluationLimits(Protocol):
    @property
    def max_evaluation_images(self) -> int: ...
    @property
    def evaluation_timeout(self) -> float: ...


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One image as it came, and the row of its class."""

    data: bytes
    row: int
    filename: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one image: the row of its class, the best row found and its probability."""

    row: int
    found: int
    confidence: float
    filename: str = ""


class Evaluator:
    def __init__(self, label_sets: LabelSets, image_scores: ImageScores, *, limits: EvaluationLimits) -> None:
        self._label_sets = label_sets
        self._image_scores = image_scores
        self._limits = limits

    async def evaluate(self, plan: Plan, images: Sequence[Labelled], *, wait: float = 0.0) -> dict[str, Any]:
        """The answer's body. Raises `DeadlineExceeded` when the time budget is used up."""
        if len(images) > self._limits.max_evaluation_images:
            raise LimitExceeded(
                "max_evaluation_images", self._limits.max_evaluation_images, actual=len(images), field="images"
            )
        if not images:
            raise Unprocessable("no labelled image was given", field="images")
        pay_images(len(images))
        with anyio.move_on_after(self._limits.evaluation_timeout + wait):
            return await self._evaluate(plan, images, wait)
        raise DeadlineExceeded(f"not done within {self._limits.evaluation_timeout + wait:g} s; send fewer images")

    async def _evaluate(self, plan: Plan, images: Sequence[Labelled], wait: float) -> dict[str, Any]:
        served = await self._label_sets.serve(plan, wait=wait)
        zero_shot = await self._label_sets.zero_shot(plan)
        failures: list[dict[str, Any]] = []
        pairs: list[tuple[Seen, Seen]] = []
        for start in range(0, len(images), TOGETHER):
            part = images[start : start + TOGETHER]
            for image, outcome in zip(part, await self._scored(part, served, zero_shot), strict=True):
                if isinstance(outcome, ServiceError):
                    failures.append({"filename": image.filename, "error": problem_document(outcome)})
                else:
                    pairs.append(outcome)
        names = plan.labels.names
        return {
            "label_set": plan.id,
            "adapter": plan.name,
            "served_by": served.by,
            "adapted": served.adapted,
            "status": served.status,
            "info": dict(served.state.info),
            "images": len(pairs),
            "failures": failures,
            "served": report([one for one, _ in pairs], names),
            "zero_shot": report([other for _, other in pairs], names),
        }

    async def _scored(
        self, images: Sequence[Labelled], served: Served, zero_shot: Served
    ) -> list[tuple[Seen, Seen] | ServiceError]:
        ours = await self._seen(images, served)
        plain = ours if served.state is zero_shot.state else await self._seen(images, zero_shot)
        return [
            one if isinstance(one, ServiceError) else other if isinstance(other, ServiceError) else (one, other)
            for one, other in zip(ours, plain, strict=True)
        ]

    async def _seen(self, images: Sequence[Labelled], served: Served) -> list[Seen | ServiceError]:
        question = Question(served, served.adapter.needs(served.state), asker=Asker(current_caller.get().id))
        outcomes = await self._image_scores.of([Upload(image.data) for image in images], question)
        return [
            Seen(image.row, outcome.rows[0], outcome.scores[0], image.filename)
            if isinstance(outcome, Scores)
            else outcome
            for image, outcome in zip(images, outcomes, strict=True)
        ]


def report(seen: Sequence[Seen], names: Sequence[str]) -> dict[str, Any]:
    """Accuracy and calibration error as shares, per class, and what was taken for what."""
    images, right = Counter(one.row for one in seen), Counter(one.row for one in seen if one.row == one.found)
    mistaken = Counter((one.row, one.found) for one in seen if one.row != one.found)
    confidence_N = torch.tensor([one.confidence for one in seen])
    correct_N = torch.tensor([float(one.row == one.found) for one in seen])
    return {
        "top1": right.total() / len(seen) if seen else None,
        "ece": calibration_error(confidence_N, correct_N) if seen else None,
        "per_class": [
            {"label": names[row], "images": images[row], "top1": right[row] / images[row]} for row in sorted(images)
        ],
        "confusion": matrix(seen, len(names)) if len(names) <= MATRIX_CLASSES else None,
        "mistaken": [
            {"label": names[row], "found": names[found], "images": count}
            for (row, found), count in mistaken.most_common(WORST_PAIRS)
        ],
        "reliability": reliability(confidence_N, correct_N),
        "worst": [
            {"filename": one.filename, "label": names[one.row], "found": names[one.found], "score": one.confidence}
            for one in worst(seen)
        ],
    }


def reliability(confidence_N: Tensor, correct_N: Tensor) -> list[dict[str, Any]]:
    """The bins that `calibration_error` sums over, those without images left out."""
    bin_N = (confidence_N * BINS).long().clamp(max=BINS - 1)
    members = [(place, bin_N == place) for place in range(BINS)]
    return [
        {
            "lower": place / BINS,
            "upper": (place + 1) / BINS,
            "images": int(inside_N.sum()),
            "confidence": float(confidence_N[inside_N].mean()),
            "top1": float(correct_N[inside_N].mean()),
        }
        for place, inside_N in members
        if inside_N.any()
    ]


def worst(seen: Sequence[Seen]) -> list[Seen]:
    """The images that were taken for something else, the surest errors first."""
    wrong = [one for one in seen if one.row != one.found]
    return sorted(wrong, key=lambda one: -one.confidence)[:WORST_IMAGES]


def matrix(seen: Sequence[Seen], classes: int) -> list[list[int]]:
    """Images by class (rows) and by what they were found to be (columns), in label order."""
    counted = Counter((one.row, one.found) for one in seen)
    return [[counted[row, found] for found in range(classes)] for row in range(classes)]
