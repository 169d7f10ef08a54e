"""Results to tables in Markdown: mean and deviation over seeds, accuracy and calibration side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from adapters.evaluation.protocol import Result


def spread(values: Sequence[float], *, digits: int = 1) -> str:
    """`mean ± sample deviation`; the deviation is left out where seeds made no difference."""
    mean = statistics.fmean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{mean:.{digits}f}" if deviation < 0.5 * 10**-digits else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def markdown(results: Iterable[Result]) -> str:
    """One row per method, one column per set with `top-1 / ECE` in percent, the mean over sets, and seconds."""
    results = list(results)
    methods = list(dict.fromkeys(r.method for r in results))
    sets = list(dict.fromkeys(r.set_name for r in results))
    lines = [_row(["top-1 / ECE, %", *sets, "mean", "seconds per label set"]), _row(["---"] * (len(sets) + 3))]
    for method in methods:
        mine = [r for r in results if r.method == method]
        cells = [_cell([r for r in mine if r.set_name == name]) for name in sets]
        seconds = _range([r.seconds for r in mine])
        lines.append(_row([method, *cells, _mean_cell(mine), seconds]))
    return "\n".join(lines)


def records(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Plain data, one entry per method, set and seed."""
    return [
        {
            "method": r.method,
            "set": r.set_name,
            "seed": r.seed,
            "top1": round(r.score.top1, 3),
            "ece": round(r.score.ece, 3),
            "images": r.score.images,
            "seconds": round(r.seconds, 4),
        }
        for r in results
    ]


def _cell(results: Sequence[Result]) -> str:
    return f"{spread([r.score.top1 for r in results])} / {spread([r.score.ece for r in results])}"


def _mean_cell(results: Sequence[Result]) -> str:
    """Deviation of the mean over sets, seed by seed."""
    seeds = sorted({r.seed for r in results})
    top1 = [statistics.fmean(r.score.top1 for r in results if r.seed == seed) for seed in seeds]
    ece = [statistics.fmean(r.score.ece for r in results if r.seed == seed) for seed in seeds]
    return f"{spread(top1)} / {spread(ece)}"


def _range(values: Sequence[float]) -> str:
    """From the quickest to the slowest: label sets differ in size, so a mean would say nothing."""
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
