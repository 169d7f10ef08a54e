"""Which fits and which tests a protocol consists of. Nothing runs here: a plan is data.

zero-shot: names of each set alone. few-shot: k images of each class of the set itself. base-to-new: k images of each
class of the first half, tested on both halves apart (arXiv 2203.05557). cross-dataset: learnt on one set, its context
applied to the names of the others. domain-shift: learnt on one set, tested on other images of the same classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from adapters.base import LabelSet
from adapters.evaluation.datasets import DataError, ImageSet
from adapters.evaluation.layouts import DataSet
from adapters.evaluation.variants import Contender

PROTOCOLS = ("zero-shot", "few-shot", "base-to-new", "cross-dataset", "domain-shift")
ALL, BASE, NEW = "all", "base", "new"
CLOSED = "closed set: it cannot serve classes that it was not fitted on"


@dataclass(frozen=True, slots=True)
class Trial:
    """One test: which images of a set, and the column of the logits that is right for each. `labels` are other classes
    than those of the fit, to be served from what it learnt; `columns` leaves only some of the fit's classes in."""

    data: DataSet
    part: str
    rows: tuple[int, ...]
    truth: tuple[int, ...]
    labels: LabelSet | None = None
    columns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Fit:
    """One adaptation and its tests. `shots` 0 learns from the names alone; `pool` holds the images to draw from."""

    contender: Contender
    seed: int
    source: str
    labels: LabelSet
    trials: tuple[Trial, ...]
    shots: int = 0
    pool: ImageSet | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `source` names the set to learn on in the last two protocols."""

    protocol: str
    sets: Sequence[DataSet]
    contenders: Sequence[Contender]
    shots: Sequence[int] = (16,)
    seeds: Sequence[int] = (1, 2, 3)
    source: DataSet | None = None


def fits(plan: Plan) -> Iterator[Fit]:
    """All fits, set by set. Raises `DataError` if the data cannot carry the protocol."""
    if plan.protocol == "zero-shot":
        for data, row in product(plan.sets, plan.contenders):
            yield from _by_names(plan, row, data)
    elif plan.protocol == "few-shot":
        for data, row in product(plan.sets, plan.contenders):
            yield from _few_shot(plan, row, data)
    elif plan.protocol == "base-to-new":
        for data, row in product(plan.sets, plan.contenders):
            yield from _base_to_new(plan, row, data)
    else:
        yield from _from_one_source(plan)


def halves(classes: int) -> tuple[range, range]:
    """Base and new classes: the base half is the larger one."""
    middle = math.ceil(classes / 2)
    return range(middle), range(middle, classes)


def _seeds(plan: Plan, row: Contender) -> Sequence[int]:
    """What no seed can change is measured once."""
    return plan.seeds if row.seeded or row.learns_from_images else plan.seeds[:1]


def _by_names(
    plan: Plan, row: Contender, data: DataSet, part: str = ALL, classes: range | None = None
) -> Iterator[Fit]:
    chosen = range(len(data.classes)) if classes is None else classes
    trial = _trial(data, part, chosen)
    for seed in _seeds(plan, row):
        yield Fit(row, seed, data.name, data.label_set(chosen), (trial,))


def _few_shot(plan: Plan, row: Contender, data: DataSet) -> Iterator[Fit]:
    if not row.learns_from_images:
        yield from _by_names(plan, row, data)
        return
    everything = range(len(data.classes))
    for shots, seed in product(plan.shots, plan.seeds):
        trial = _trial(data, ALL, everything)
        yield Fit(row, seed, data.name, data.labels, (trial,), shots, _pool(data))


def _base_to_new(plan: Plan, row: Contender, data: DataSet) -> Iterator[Fit]:
    base, new = halves(len(data.classes))
    if not new:
        raise DataError(f"{data.name} has one class; base-to-new needs two or more")
    if not row.learns_from_images:
        yield from _by_names(plan, row, data, BASE, base)
        yield from _by_names(plan, row, data, NEW, new)
        return
    trials = (_trial(data, BASE, base), _trial(data, NEW, new, data.label_set(new)))
    for shots, seed in product(plan.shots, plan.seeds):
        yield Fit(row, seed, data.name, data.label_set(base), trials, shots, _only(_pool(data), base))


def _from_one_source(plan: Plan) -> Iterator[Fit]:
    source = plan.source
    if source is None:
        raise DataError(f"{plan.protocol} needs the name of the set to learn on")
    targets = [data for data in plan.sets if data.name != source.name]
    shift = plan.protocol == "domain-shift"
    trials = [_shifted(source, data) if shift else _elsewhere(data) for data in targets]
    if source.train is not None:
        trials.insert(0, _trial(source, ALL, range(len(source.classes))))
    if not targets:
        raise DataError(f"{plan.protocol} needs sets besides {source.name} to test on")
    pool = source.train or source.test
    for row in plan.contenders:
        if row.learns_from_images:
            for shots, seed in product(plan.shots, plan.seeds):
                yield Fit(row, seed, source.name, source.labels, tuple(trials), shots, pool)
        else:
            for trial in trials:
                yield from _by_names(plan, row, trial.data)


def _trial(data: DataSet, part: str, classes: range, labels: LabelSet | None = None) -> Trial:
    rows = tuple(row for row, label in enumerate(data.test.labels) if label in classes)
    if not rows:
        raise DataError(f"{data.name} has no test images of its {part} classes")
    return Trial(data, part, rows, tuple(data.test.labels[row] - classes.start for row in rows), labels)


def _elsewhere(data: DataSet) -> Trial:
    return _trial(data, ALL, range(len(data.classes)), data.labels)


def _shifted(source: DataSet, data: DataSet) -> Trial:
    """Classes go by name; the target may have some of the source's classes only."""
    place = {name.casefold(): row for row, name in enumerate(source.classes)}
    missing = [name for name in data.classes if name.casefold() not in place]
    if missing:
        raise DataError(
            f"domain-shift: {data.name} has classes that {source.name} lacks: {', '.join(missing[:5])}; name the sets "
            "to compare, or use cross-dataset"
        )
    columns = tuple(place[name.casefold()] for name in data.classes)
    return Trial(data, ALL, tuple(range(len(data.test.labels))), data.test.labels, None, columns)


def _pool(data: DataSet) -> ImageSet:
    if data.train is None:
        raise DataError(
            f"{data.name} has no images to learn from: expected few_shot/{data.name} beside evaluation/{data.name}, "
            "train beside test, or a split file with a train part"
        )
    return data.train


def _only(pool: ImageSet, classes: range) -> ImageSet:
    """Images of the first classes, which keep their rows."""
    rows = [row for row, label in enumerate(pool.labels) if label in classes]
    kept = pool.take(rows)
    return ImageSet(kept.name, kept.classes[: len(classes)], kept.paths, kept.labels)
