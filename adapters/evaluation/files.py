"""The folder that a run leaves behind: table, JSON, and plots, made from its journal as often as wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from adapters.evaluation.plots import PlottingMissing, draw
from adapters.evaluation.records import Cost, Measured
from adapters.evaluation.tables import cost_table, table


def markdown_report(entries: Sequence[Measured], costs: Sequence[Cost]) -> str:
    """Accuracy, then cost where it was measured."""
    parts = [table(entries)]
    if costs:
        parts.append(cost_table(costs))
    return "\n\n".join(parts) + "\n"


def write_report(folder: Path, entries: Sequence[Measured], costs: Sequence[Cost]) -> list[str]:
    """Writes report.md, report.json and plots; returns remarks for the reader (such as plots that could not be
    drawn)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(markdown_report(entries, costs), encoding="utf-8")
    plain = {"measurements": [asdict(entry) for entry in entries], "costs": [asdict(cost) for cost in costs]}
    (folder / "report.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    try:
        drawn = draw(entries, costs, folder / "plots")
    except PlottingMissing as reason:
        return [str(reason)]
    return [f"plots: {', '.join(file.name for file in drawn)} in {folder / 'plots'}"] if drawn else []
