"""Every method runs one short fit and answers one image on a ViT-B/16 with random weights: mechanics, seconds, memory.
Says nothing about accuracy."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from PIL import Image

from adapters.evaluation.cost import CostTask, measured_apart
from adapters.evaluation.tables import cost_table
from adapters.registry import METHODS
from benchmarks.names import class_names
from benchmarks.random_vit import random_vit
from benchmarks.report import progress, write, write_header
from service.process.cores import usable_cores


def noise(folder: Path, count: int) -> tuple[str, ...]:
    """Images of noise; what they show is of no matter here."""
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(256, (256, 256, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(file)
    return tuple(map(str, files))


def task_of(method: str, backbone: Path, images: Sequence[str], arguments: argparse.Namespace) -> CostTask:
    """A fit of few steps; the other settings are the method's own."""
    entry = METHODS[method]
    known = {option.name for option in fields(entry.settings)}
    learns = entry.support > 0
    tunes_images = entry.scores_images and not learns
    options = {"steps": arguments.steps} if "steps" in known and not tunes_images else {}
    options |= {"heldout": 0.0} if "heldout" in known else {}
    return CostTask(
        backbone=str(backbone),
        label=method,
        method=method,
        set_name="noise",
        classes=tuple(class_names(arguments.classes)),
        images=tuple(images[:2]),
        options=options,
        support=tuple(images[: arguments.classes]) if learns else (),
        labels=tuple(range(arguments.classes)) if learns else (),
        threads=arguments.threads,
    )


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=900.0)
    parser.add_argument("--threads", type=int, default=usable_cores())
    arguments = parser.parse_args(argv)
    write_header("Every method on a ViT-B/16 with random weights", "vit_b16", argv)
    with random_vit() as backbone, tempfile.TemporaryDirectory() as folder:
        images = noise(Path(folder), max(2, arguments.classes))
        costs = []
        for method in arguments.methods:
            cost = measured_apart(task_of(method, backbone, images, arguments), timeout=arguments.timeout)
            progress(f"{method}: {cost.skipped or f'{cost.fit_seconds} s, {cost.image_ms} ms per image'}")
            costs.append(cost)
    write(cost_table(costs))
    classes, steps, threads = arguments.classes, arguments.steps, arguments.threads
    write(f"\n{classes} classes, one image each, fits of {steps} steps, {threads} threads.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
