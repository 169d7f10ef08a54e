"""Adapted once per label set against tuned for every image (TPT): milliseconds and memory of one image on the same
backbone and label set. Every measurement is a fresh process; methods take turns."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from adapters.evaluation.cost import CostTask, measured_apart
from adapters.evaluation.records import Cost
from benchmarks.classify import IMAGES
from benchmarks.image_path import variants
from benchmarks.names import class_names
from benchmarks.report import progress, write, write_header, write_table

METHODS = ("self-tpt", "zero-shot", "tpt")
ADAPTED = "self-tpt"
FLOOR_MIB = 1.0
"""Less growth than this cannot be told from none."""


def measure(arguments: argparse.Namespace, files: Sequence[str]) -> dict[str, list[Cost]]:
    found: dict[str, list[Cost]] = defaultdict(list)
    for number in range(1, arguments.rounds + 1):
        for method in arguments.methods:
            progress(f"round {number} of {arguments.rounds}: {method}")
            task = CostTask(
                backbone=arguments.backbone,
                label=method,
                method=method,
                set_name="names",
                classes=tuple(class_names(arguments.classes)),
                images=tuple(files),
                threads=1,
            )
            cost = measured_apart(task, timeout=arguments.timeout)
            if cost.skipped:
                raise SystemExit(f"{method}: {cost.skipped}")
            found[method].append(cost)
    return found


def table(found: dict[str, list[Cost]]) -> list[tuple[str, ...]]:
    def figure(method: str, name: str) -> float:
        return float(statistics.median(getattr(cost, name) for cost in found[method]))

    rows: list[tuple[str, ...]] = []
    for method in found:
        slower = figure(method, "image_ms") / figure(ADAPTED, "image_ms")
        larger = max(FLOOR_MIB, figure(method, "image_mib")) / max(FLOOR_MIB, figure(ADAPTED, "image_mib"))
        rows.append(
            (method, f"{figure(method, 'image_ms'):.1f}", f"{slower:.1f}", f"{figure(method, 'image_mib'):.0f}",
             f"{larger:.1f}", f"{figure(method, 'fit_seconds'):.2f}", f"{figure(method, 'fit_mib'):.0f}")
        )  # fmt: skip
    return rows


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--images", type=int, default=6, help="timed one by one, after one that warms up")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--backbone", default="bundled")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of one method in one round")
    arguments = parser.parse_args(argv)
    write_header("Adapted once against tuned per image", "per_image", argv)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, data in enumerate(variants(IMAGES / "coffee.jpg", arguments.images + 1)):
            files.append(str(Path(folder) / f"{number}.jpg"))
            Path(files[-1]).write_bytes(data)
        found = measure(arguments, files)
    columns = ("method", "ms per image", f"times {ADAPTED}", "MiB of an image", f"times {ADAPTED}",
               "once per label set, s", "MiB of that")  # fmt: skip
    write_table(columns, table(found))
    write(
        f"{arguments.classes} classes, one thread, torch; medians of {arguments.rounds} rounds. Memory is growth over "
        f"the loaded backbone; below {FLOOR_MIB:g} MiB it counts as that in ratios.\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
