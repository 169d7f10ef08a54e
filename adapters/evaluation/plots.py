"""Measurements to pictures. matplotlib is optional, and drawn without a screen."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError
from adapters.evaluation.protocols import ALL, BASE, NEW
from adapters.evaluation.records import Cost, Measured, by
from adapters.evaluation.tables import means

MISSING = "the plots need matplotlib: pip install 'self-tpt-service[eval]'"
MOST_SETS = 12


class PlottingMissing(AdapterError):
    """matplotlib is not installed."""


def draw(entries: Sequence[Measured], costs: Sequence[Cost], folder: Path) -> list[Path]:
    """Writes the plots that the measurements allow as PNG files. Raises `PlottingMissing`."""
    pyplot = _pyplot()
    kept = [entry for entry in entries if not entry.skipped]
    if not kept:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    done = [_bars(pyplot, kept, folder / "accuracy.png"), _reliability(pyplot, kept, folder / "reliability.png")]
    if len({entry.shots for entry in kept if entry.shots}) > 1:
        done.append(_curves(pyplot, kept, folder / "few_shot.png"))
    if any(not cost.skipped for cost in costs):
        done.append(_cost(pyplot, kept, costs, folder / "cost.png"))
    return done


def _pyplot() -> Any:
    try:
        import matplotlib  # noqa: PLC0415  # an optional extra
    except ImportError as error:
        raise PlottingMissing(MISSING) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  # after the back end is chosen

    return pyplot


@contextmanager
def _figure(
    pyplot: Any, file: Path, rows: int = 1, columns: int = 1, size: tuple[float, float] = (8, 5)
) -> Iterator[Any]:
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    try:
        yield axes
        figure.savefig(file, dpi=130)
    finally:
        pyplot.close(figure)


def _last_shots(entries: Iterable[Measured]) -> list[Measured]:
    """Per method only its largest number of shots."""
    kept: list[Measured] = []
    for mine in by(entries, lambda e: e.method).values():
        most = max(e.shots for e in mine)
        kept += [e for e in mine if e.shots == most]
    return kept


def _columns(entries: Sequence[Measured]) -> list[tuple[str, str]]:
    return list(by(entries, lambda e: (e.set_name, e.part)))[:MOST_SETS]


def _title(column: tuple[str, str]) -> str:
    name, part = column
    return name if part == ALL else f"{name} ({part})"


def _bars(pyplot: Any, entries: Sequence[Measured], file: Path) -> Path:
    """Top-1 and ECE by set and method, with the deviation over seeds."""
    entries = _last_shots(entries)
    columns, methods = _columns(entries), list(by(entries, lambda e: e.method))
    width = 0.85 / len(methods)
    with _figure(pyplot, file, rows=2, size=(max(8.0, 1.6 * len(columns) + 4), 8)) as axes:
        for axis, fact in zip(axes[:, 0], ("top1", "ece"), strict=True):
            for place, method in enumerate(methods):
                mine = [[getattr(e, fact) for e in entries if (e.set_name, e.part) == c and e.method == method]
                        for c in columns]  # fmt: skip
                xs = [i + (place - (len(methods) - 1) / 2) * width for i, values in enumerate(mine) if values]
                heights = [statistics.fmean(values) for values in mine if values]
                errors = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in mine if values]
                axis.bar(xs, heights, width, yerr=errors, label=method, capsize=2, color=_colour(pyplot, place))
            axis.set_xticks(range(len(columns)), [_title(column) for column in columns], rotation=15)
            axis.set_ylabel("top-1, %" if fact == "top1" else "ECE, %")
        axes[0, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return file


def _reliability(pyplot: Any, entries: Sequence[Measured], file: Path) -> Path:
    """Accuracy against confidence, bins of all sets and seeds added up; one panel a method."""
    groups = {name: mine for name, mine in by(_last_shots(entries), lambda e: e.method).items() if mine[0].bins}
    across = min(4, len(groups))
    down = -(-len(groups) // across)
    with _figure(pyplot, file, rows=down, columns=across, size=(3.2 * across, 3.2 * down)) as axes:
        for axis in axes.flat[len(groups) :]:
            axis.set_visible(False)
        for axis, (name, mine) in zip(axes.flat, groups.items(), strict=False):
            sums = [tuple(map(sum, zip(*rows, strict=True))) for rows in zip(*(e.bins for e in mine), strict=True)]
            points = [(confidence / count, hits / count, count) for count, confidence, hits in sums if count]
            most = max(count for *_, count in points)
            axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
            axis.plot([p[0] for p in points], [p[1] for p in points], linewidth=1)
            axis.scatter([p[0] for p in points], [p[1] for p in points], s=[4 + 60 * p[2] / most for p in points])
            axis.set(title=name, xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
            axis.title.set_fontsize(9)
    return file


def _curves(pyplot: Any, entries: Sequence[Measured], file: Path) -> Path:
    """Top-1 by shots, one panel a set; what takes no images is a level line."""
    columns = _columns(entries)
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    with _figure(pyplot, file, rows=down, columns=across, size=(4.6 * across, 3.8 * down)) as axes:
        for axis in axes.flat[len(columns) :]:
            axis.set_visible(False)
        for axis, column in zip(axes.flat, columns, strict=False):
            _panel(pyplot, axis, [e for e in entries if (e.set_name, e.part) == column])
            axis.set(title=_title(column), xlabel="images per class", ylabel="top-1, %", xscale="log")
            shots = sorted({e.shots for e in entries if e.shots})
            axis.set_xticks(shots, [str(count) for count in shots])
            axis.minorticks_off()
        axes.flat[0].legend(fontsize=8)
    return file


def _panel(pyplot: Any, axis: Any, entries: Sequence[Measured]) -> None:
    for place, (method, mine) in enumerate(by(entries, lambda e: e.method).items()):
        colour = _colour(pyplot, place)
        if all(e.shots == 0 for e in mine):
            axis.axhline(statistics.fmean(e.top1 for e in mine), linestyle="--", color=colour, label=method)
            continue
        points = sorted(by(mine, lambda e: e.shots).items())
        values = [[e.top1 for e in group] for _, group in points]
        errors = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
        axis.errorbar(
            [shots for shots, _ in points], [statistics.fmean(v) for v in values], errors, label=method, color=colour,
            marker="o", markersize=3, capsize=2,
        )  # fmt: skip


def _cost(pyplot: Any, entries: Sequence[Measured], costs: Sequence[Cost], file: Path) -> Path:
    """Mean top-1 over the sets against milliseconds per image."""
    by_method = by(_last_shots(entries), lambda e: e.method)
    with _figure(pyplot, file) as axes:
        axis = axes[0, 0]
        for place, cost in enumerate(cost for cost in costs if not cost.skipped and cost.method in by_method):
            values = means(e for e in by_method[cost.method] if e.part in (ALL, BASE, NEW))
            error = statistics.stdev(values) if len(values) > 1 else 0.0
            axis.errorbar(cost.image_ms, statistics.fmean(values), error, marker="o", capsize=2, linestyle="none",
                          color=_colour(pyplot, place), label=cost.method)  # fmt: skip
        axis.set(xscale="log", xlabel="ms per image", ylabel="mean top-1, %")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return file


def _colour(pyplot: Any, place: int) -> Any:
    return pyplot.get_cmap("tab20")(place % 20)
