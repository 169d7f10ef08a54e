"""What front ends and workers say to each other: plain values, so that any transport can carry them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adapters.base import ImageNeeds, InfoValue, LabelSet, Support
from service.compute.engine import Scores
from service.compute.scoring import ScoreKind
from service.compute.work_queue import ANYBODY
from service.errors import (
    ComputeError,
    DeviceDead,
    DeviceFull,
    InternalError,
    NotReady,
    Overloaded,
    ServiceError,
    ShuttingDown,
)

_REFUSALS: dict[str, type[ServiceError]] = {
    one.__name__: one for one in (ComputeError, DeviceDead, DeviceFull, InternalError, NotReady, ShuttingDown)
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a worker makes the same adapter as the front end; `version` tells whether it did."""

    name: str
    options: Mapping[str, InfoValue]
    version: str


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """One image of a batch: which class state it is scored against, and how."""

    state: str
    top_k: int
    scores: ScoreKind
    recipe: Recipe | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BatchOrder:
    """Images of one call, uint8 [B, 3, S, S] or [B, V, 3, S, S], or their features, float32 [B, D]. `seconds` are left
    until nobody needs the answer. `states` are the bytes of those class states that the worker said it lacks."""

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    needs: ImageNeeds
    images: tuple[ImageOrder, ...]
    client: str = ANYBODY.client
    seconds: float = math.inf
    states: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A `ServiceError`, taken apart."""

    kind: str
    detail: str
    retry_after: float = 1.0

    @classmethod
    def of(cls, error: ServiceError) -> Refusal:
        after = error.extensions.get("retry_after", 1.0)
        return cls(type(error).__name__, error.detail, after if isinstance(after, (int, float)) else 1.0)

    def error(self) -> ServiceError:
        if self.kind == Overloaded.__name__:
            return Overloaded(self.detail, retry_after=self.retry_after)
        return _REFUSALS.get(self.kind, InternalError)(self.detail)


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """One outcome per image; or, when `missing` names class states, none at all."""

    outcomes: tuple[Scores | Refusal, ...] = ()
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class AdaptOrder:
    labels: LabelSet
    recipe: Recipe
    support: Support | None = None
