"""What every subcommand shows the same way: progress on stderr, results on stdout, JSON when asked for."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

BAR_CELLS = 20


def results() -> Console:
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def notes() -> Console:
    return Console(file=sys.stderr, highlight=False)


def progress(*, counted: bool = False) -> Progress:
    """Bars that leave nothing behind; on something that is no terminal they stay silent."""
    last = [MofNCompleteColumn()] if counted else [TextColumn("{task.percentage:>3.0f} %")]
    console = notes()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        *last,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def bar(score: float) -> str:
    """A score as a short bar of blocks."""
    filled = round(max(0.0, min(1.0, score)) * BAR_CELLS)
    return "█" * filled + "·" * (BAR_CELLS - filled)
