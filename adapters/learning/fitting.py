"""Few-shot fits: who is held out, which images a step sees, how the rate runs, and when to give up. Knows no method.

Tensor suffixes: N support images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapters.base import LabelSet, Support
from adapters.errors import AdaptationDiverged, SupportError
from adapters.text.chunked import Tick, nothing

MINIMUM_TO_HOLD_OUT = 2
"""A class gives an image to validation only if one remains to learn from."""

Step = Callable[[Tensor], float]
"""Given rows of the support: adds gradients to the parameters and returns the loss."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of the support to learn from, and those held out to judge by (possibly none)."""

    train: Tensor
    heldout: Tensor


def checked_support(support: Support | None, labels: LabelSet, *, per_class: int = 1) -> Support:
    """Raises `SupportError`, before any model work, unless every class has at least `per_class` images."""
    if support is None or len(support) == 0:
        raise SupportError("this method learns from support images, and none were given")
    classes = len(labels.classes)
    if int(support.labels.min()) < 0 or int(support.labels.max()) >= classes:
        raise SupportError(f"support labels must lie in 0 to {classes - 1}", field="support.labels")
    counts_C = support.per_class(classes)
    if int(counts_C.min()) < per_class:
        row = int(counts_C.argmin())
        raise SupportError(
            f"class {labels.names[row]!r} has {int(counts_C[row])} support images, at least {per_class} are needed",
            field=f"support.{labels.names[row]}",
        )
    return support


def split_support(labels_N: Tensor, *, fraction: float, seed: int, at_most: int = 4) -> Split:
    """Holds out a share of each class, at most `at_most` images of it, by a seeded draw. Classes of one image keep it
    for learning."""
    generator = torch.Generator().manual_seed(seed)
    train, heldout = [], []
    for row in labels_N.unique().tolist():
        members = (labels_N == row).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        many = len(members) >= MINIMUM_TO_HOLD_OUT and fraction > 0
        held = min(at_most, len(members) - 1, max(1, round(fraction * len(members)))) if many else 0
        heldout.append(members[:held])
        train.append(members[held:])
    return Split(torch.cat(train).sort().values, torch.cat(heldout).sort().values)


def minibatches(rows: Tensor, batch: int, *, seed: int) -> Iterator[Tensor]:
    """Endless seeded passes over `rows`. The last batch of a pass is filled up from the next one, so that a small
    support never yields zero steps."""
    generator = torch.Generator().manual_seed(seed)
    waiting = rows[:0]
    while True:
        while len(waiting) < min(batch, len(rows)):
            waiting = torch.cat([waiting, rows[torch.randperm(len(rows), generator=generator)]])
        yield waiting[:batch]
        waiting = waiting[batch:]


def cosine_rate(step: int, steps: int, *, warmup: int) -> float:
    """Factor on the learning rate: linear warm-up, then half a cosine down to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    parameters: Sequence[nn.Parameter | Tensor],
    step: Step,
    batches: Iterator[Tensor],
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    warmup: int = 0,
    tick: Tick = nothing,
) -> list[float]:
    """Runs `steps` steps and returns their losses. Raises `AdaptationDiverged` at the first loss or parameter that is
    not finite. `tick` is called after every step, besides whatever ticks `step` makes itself."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: cosine_rate(n, steps, warmup=warmup))
    losses: list[float] = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        losses.append(step(next(batches)))
        optimizer.step()
        schedule.step()
        if not (math.isfinite(losses[-1]) and all(bool(p.detach().isfinite().all()) for p in parameters)):
            raise AdaptationDiverged(f"the loss became {losses[-1]} after {len(losses)} steps")
        tick()
    return losses
