"""What was measured, on what machine and when, as markdown."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from service.process.cores import usable_cores


def write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_header(title: str, module: str, arguments: Sequence[str]) -> None:
    command = " ".join(["python -m", f"benchmarks.{module}", *arguments])
    backbone = os.environ.get("SELFTPT_BACKBONE", "bundled")
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    write(f"### {title}\n")
    write(f"`{command}`; backbone `{Path(backbone).name}`; {machine()}; {when}\n")


def machine() -> str:
    return (
        f"{_cpu()}, {usable_cores()} cores (load {os.getloadavg()[0]:.1f}), Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    write(f"| {' | '.join(columns)} |")
    write(f"|{'|'.join('---' for _ in columns)}|")
    for row in rows:
        write(f"| {' | '.join(map(str, row))} |")
    write("")


def progress(text: str) -> None:
    """Goes to standard error, so that the tables can be redirected into a file."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
