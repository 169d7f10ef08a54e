"""Times an engine on this machine and compares what it says with the reference.

Tensor suffixes: P probes, D joint width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.clip import Backbone
from adapters.engines.base import REFERENCE, Finding, ImageEngine, Kind
from adapters.engines.probes import Probes

MIN_COSINE = 0.999
"""Of every probe. Unit vectors with this cosine lie 0.045 apart; as the difference has no preferred direction, a margin
between two classes moves by about 0.045 / sqrt(D) of their distance, a tenth of the usual margin."""

MIN_AGREEMENT = 0.99
MIN_NEIGHBOURS = 0.9999
"""Cosine between an image alone and the same image in a batch: what strangers' images may do to one's scores."""

REFERENCE_SECONDS = 3.0
"""About how long the reference may take over all probes, which sets their number."""

MOST_PROBES, FEWEST_PROBES = 40, 10
_PASS_SECONDS = 0.7
_ROUNDS_SECONDS = 0.5
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 10
_ALONE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """The reference's answers, against which others are measured, and the size of a batch."""

    probes: Probes
    reference_PD: Tensor
    batch: int
    threads: int
    reference: Finding

    @classmethod
    def of(cls, backbone: Backbone, reference: ImageEngine, *, max_batch: int, threads: int) -> Bench:
        """Chooses as many probes, and as large a batch, as this model allows in a few seconds."""
        size = backbone.preprocess.size
        blank = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        single = seconds_of(lambda: reference.features(blank), threads=threads)
        count = max(FEWEST_PROBES, min(MOST_PROBES, int(REFERENCE_SECONDS / single)))
        batch = max(1, min(max_batch, count, int(_PASS_SECONDS / single)))
        probes = Probes.of(backbone, count)
        answers_PD = unit(reference, probes.pixels_P3SS, batch)
        itself = Finding(REFERENCE, cosine=1.0, agreement=1.0)
        timed = _timed(itself, reference, probes.pixels_P3SS, batch, threads)
        return cls(probes, answers_PD, batch, threads, timed)

    def finding(self, kind: Kind, engine: ImageEngine) -> Finding:
        """What is to be known of an engine; `verdict` judges it."""
        pixels_P3SS = self.probes.pixels_P3SS
        answers_PD = unit(engine, pixels_P3SS, self.batch)
        alone_PD = unit(engine, pixels_P3SS[:_ALONE], 1)
        found = Finding(
            kind,
            cosine=_least_cosine(self.reference_PD, answers_PD),
            agreement=self.probes.agreement(self.reference_PD, answers_PD),
            neighbours=_least_cosine(alone_PD, answers_PD[:_ALONE]),
        )
        return _timed(found, engine, pixels_P3SS, self.batch, self.threads)


def verdict(found: Finding) -> str:
    """Why an engine with these figures may not serve, "" if it may."""
    if found.cosine is None or found.agreement is None or found.neighbours is None:
        return "not measured"
    if not found.cosine >= MIN_COSINE:  # also for not-a-number
        return f"cosine {found.cosine:.5f} to torch fp32 is below {MIN_COSINE}"
    if found.agreement < MIN_AGREEMENT:
        return f"top-1 agreement {found.agreement:.4f} with torch fp32 is below {MIN_AGREEMENT}"
    if found.neighbours < MIN_NEIGHBOURS:
        return f"cosine {found.neighbours:.5f} between an image alone and in a batch is below {MIN_NEIGHBOURS}"
    return ""


def unit(engine: ImageEngine, pixels_P3SS: Tensor, batch: int) -> Tensor:
    return F.normalize(torch.cat([engine.features(part) for part in pixels_P3SS.split(batch)]), dim=-1)


def seconds_of(call: Callable[[], object], *, threads: int) -> float:
    """The fastest of some calls after one that warms up: what disturbs on a shared machine only ever adds. One thread
    is timed by the processor time it takes, which other programs hardly touch; with several, idling counts too."""
    clock = time.process_time if threads == 1 else time.perf_counter
    call()
    taken: list[float] = []
    end = time.perf_counter() + _ROUNDS_SECONDS
    while len(taken) < _FEWEST_ROUNDS or (len(taken) < _MOST_ROUNDS and time.perf_counter() < end):
        start = clock()
        call()
        taken.append(clock() - start)
    return max(min(taken), 1e-6)


def _timed(found: Finding, engine: ImageEngine, pixels_P3SS: Tensor, batch: int, threads: int) -> Finding:
    single = seconds_of(lambda: engine.features(pixels_P3SS[:1]), threads=threads)
    whole = seconds_of(lambda: engine.features(pixels_P3SS[:batch]), threads=threads) / batch
    return replace(found, ms_single=round(single * 1e3, 2), ms_batch=round(whole * 1e3, 2))


def _least_cosine(one_PD: Tensor, other_PD: Tensor) -> float:
    return round(float((one_PD * other_PD).sum(dim=1).min()), 6)
