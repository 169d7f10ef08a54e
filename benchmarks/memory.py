"""Peak memory of learning prompts by number of classes: one graph over all classes (as CoOp is published), chunks with
exact gradients, TGP-T, and Self-TPT's whole adaptation. Every cell is a fresh process; what does not fit is said so."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.adaptation import memory
from benchmarks.memory_cell import Cell, Task
from benchmarks.random_vit import random_vit
from benchmarks.report import progress, write, write_header, write_table
from service.process.cores import usable_cores

WAYS = {
    "full-77": "one graph, prompts at full length",
    "full": "one graph, prompts cut at the longest",
    "chunked": "chunks of 64, as served",
    "tgp-t": "TGP-T, 8 images",
    "self-tpt": "Self-TPT, 2 steps and serving",
}
GROWING = ("full-77", "full")
GIB = 1024**3
HOPELESS = 1.5
"""A cell is not tried if the smaller ones say that it needs this many times the limit."""


def run_cell(task: Task, *, limit: float, timeout: float) -> Cell | str:
    """The measurement, or why there is none. The process is watched and killed above `limit` GiB."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.memory_cell"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(task)).encode())
        process.stdin.close()
        stopped = _watched(process, limit=limit * GIB, deadline=time.monotonic() + timeout)
        answer, error = process.stdout.read(), process.stderr.read() if process.stderr else b""
    if stopped == "memory":
        return f"did not fit in {limit:g} GiB"
    if stopped == "time":
        return f"not finished after {timeout:g} s"
    if process.returncode != 0:
        lines = error.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"ended with code {process.returncode}"
    return Cell(**json.loads(answer))


def _watched(process: subprocess.Popen[bytes], *, limit: float, deadline: float) -> str:
    while process.poll() is None:
        if _resident(process.pid) > limit:
            process.kill()
            return "memory"
        if time.monotonic() > deadline:
            process.kill()
            return "time"
        time.sleep(0.02)
    return ""


def _resident(pid: int) -> int:
    """0 for a process that ended meanwhile."""
    try:
        return memory(pid, "VmRSS")
    except (OSError, StopIteration):
        return 0


def cells(backbone: str, way: str, arguments: argparse.Namespace) -> list[tuple[int, Cell | str]]:
    """By ascending number of classes; what the last cell shows to be hopeless is not tried."""
    found: list[tuple[int, Cell | str]] = []
    for classes in sorted(arguments.classes):
        expected = _expected(found, classes) if way in GROWING else 0.0
        if found and isinstance(found[-1][1], str) and way in GROWING:
            outcome: Cell | str = "not tried: the smaller one failed"
        elif expected > HOPELESS * arguments.limit * 1024:
            outcome = f"about {expected / 1024:.0f} GiB by the cells above, not tried"
        else:
            task = Task(backbone, way, classes, arguments.threads)
            outcome = run_cell(task, limit=arguments.limit, timeout=arguments.timeout)
        progress(f"{Path(backbone).name}, {way}, {classes} classes: {outcome}")
        found.append((classes, outcome))
    return found


def _expected(found: Sequence[tuple[int, Cell | str]], classes: int) -> float:
    """MiB in proportion to the largest cell that was measured; memory of a graph grows with its prompts."""
    known = [(count, cell.rss_mib) for count, cell in found if isinstance(cell, Cell)]
    return known[-1][1] * classes / known[-1][0] if known else 0.0


def shown(outcome: Cell | str) -> str:
    if isinstance(outcome, str):
        return outcome
    device = f", device {outcome.cuda_mib:,.0f}" if outcome.cuda_mib else ""
    return f"{outcome.rss_mib:,.0f}{device} ({outcome.seconds:.1f} s)"


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["bundled", "vit-b-16"], help="vit-b-16 has random weights")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--limit", type=float, default=8.0, help="GiB of resident memory")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds of a cell")
    parser.add_argument("--threads", type=int, default=usable_cores())
    arguments = parser.parse_args(argv)
    write_header("Memory of learning prompts", "memory", argv)
    write("Peak growth of resident memory in MiB over the loaded backbone (and seconds of the step); each cell from a "
          f"fresh process, limit {arguments.limit:g} GiB, {arguments.threads} threads.\n")  # fmt: skip
    with ExitStack() as stack:
        for name in arguments.backbones:
            backbone = str(stack.enter_context(random_vit())) if name == "vit-b-16" else name
            columns = {way: dict(cells(backbone, way, arguments)) for way in arguments.ways}
            write(f"Backbone {name}{' (random weights)' if name == 'vit-b-16' else ''}:\n")
            rows = [
                (f"{classes:,}", *(shown(columns[way][classes]) for way in arguments.ways))
                for classes in sorted(arguments.classes)
            ]
            write_table(("classes", *(WAYS[way] for way in arguments.ways)), rows)


if __name__ == "__main__":
    main(sys.argv[1:])
