"""Costs of all rows of a table, each in a fresh process, and from the journal where they are known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.clip import Backbone
from adapters.errors import AdapterError
from adapters.evaluation.cost import TIMED, CostTask, measured_apart
from adapters.evaluation.layouts import DataSet
from adapters.evaluation.records import Cost, Journal
from adapters.evaluation.variants import Variant

TIMEOUT = 1800.0


@dataclass(frozen=True, slots=True)
class CostPlan:
    """The set whose names and images are taken, the support images of a fit, and where it runs."""

    data: DataSet
    shots: int
    seed: int
    device: str
    prompts: Path | None = None
    """Folder of source prompts."""


def costs_of(rows: Sequence[Variant], backbone: Backbone, plan: CostPlan, journal: Journal) -> Iterator[Cost]:
    known = {cost.key: cost for cost in journal.costs()}
    for row in rows:
        task = _task(row, backbone, plan)
        key = (task.label, task.set_name, len(task.classes), task.content)
        cost = known.get(key) or measured_apart(task, timeout=TIMEOUT)
        if key not in known:
            journal.add(cost)
        yield cost


def _task(row: Variant, backbone: Backbone, plan: CostPlan) -> CostTask:
    data = plan.data
    drawn = data.train.drawn(plan.shots, seed=plan.seed) if row.learns_from_images and data.train else None
    return CostTask(
        backbone=backbone.name,
        label=row.label,
        method=row.method,
        set_name=data.name,
        classes=data.classes,
        images=tuple(
            str(path) for path in data.test.paths[:: max(1, len(data.test.paths) // (TIMED + 1))][: TIMED + 1]
        ),
        content=_content(row, backbone, plan),
        options=dict(row.options),
        templates=(data.template,) if data.template else (),
        support=tuple(map(str, drawn.paths)) if drawn else (),
        labels=drawn.labels if drawn else (),
        seed=plan.seed,
        device=plan.device,
        prompts=str(plan.prompts or ""),
    )


def _content(row: Variant, backbone: Backbone, plan: CostPlan) -> str:
    try:
        version = row.adapter(backbone, plan.seed).version
    except AdapterError as reason:
        version = str(reason)
    facts = (backbone.fingerprint, backbone.precision, version, plan.data.digest, str(plan.shots), plan.device)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
