"""Measurements to pictures, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import progress


def bars(groups: Mapping[str, Mapping[str, float]], file: Path, *, ylabel: str) -> bool:
    """One group of bars per key, one bar per key within; False where nothing can be drawn."""
    pyplot = _pyplot()
    if pyplot is None or not groups:
        return False
    kinds = list(dict.fromkeys(kind for group in groups.values() for kind in group))
    figure, axis = pyplot.subplots(figsize=(max(6, 1.2 * len(groups)), 4.5), layout="constrained")
    for number, kind in enumerate(kinds):
        places = [place + number / (len(kinds) + 1) for place in range(len(groups))]
        axis.bar(places, [group.get(kind, 0.0) for group in groups.values()], 1 / (len(kinds) + 1), label=kind)
    axis.set_xticks(range(len(groups)), list(groups), rotation=25, ha="right")
    axis.set_ylabel(ylabel)
    axis.legend()
    return _saved(pyplot, figure, file)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], file: Path, *, xlabel: str, ylabel: str) -> bool:
    """One line per key through its points; False where nothing can be drawn."""
    pyplot = _pyplot()
    if pyplot is None or not lines:
        return False
    figure, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, points in lines.items():
        axis.plot(*zip(*points, strict=True), marker="o", label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log")
    axis.legend()
    return _saved(pyplot, figure, file)


def _pyplot() -> Any:
    try:
        import matplotlib  # noqa: PLC0415  # optional
    except ImportError:
        progress("no plots: matplotlib is not installed (pip install 'self-tpt-service[eval]')")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  # after the back end is chosen

    return pyplot


def _saved(pyplot: Any, figure: Any, file: Path) -> bool:
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
    return True
