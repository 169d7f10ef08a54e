"""`selftpt compare`: every method on the user's own labelled folder, in one table. Offline."""

from __future__ import annotations

from pathlib import Path

import click

from adapters.clip import load_backbone
from adapters.evaluation.datasets import DataError
from adapters.evaluation.layouts import DataSet, halved, read_data
from adapters.evaluation.naming import parse_contenders, with_controls
from adapters.evaluation.protocols import Plan
from adapters.registry import METHODS
from service.commands.display import notes, progress
from service.commands.evaluate import Asked, FolderOut, FolderThere, run_plan
from service.commands.local import plainly

SPLIT_SEED = 0


@click.command()
@click.argument("folder", type=FolderThere)
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Divided by commas.")
@click.option(
    "--shots", type=click.IntRange(min=1), default=16, show_default=True, help="Images per class to learn from."
)
@click.option(
    "--max-images", type=click.IntRange(min=1), default=10, show_default=True, help="Test images of each class."
)
@click.option("--test-share", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5, show_default=True,
              help="Of each class, where the folder has no test images of its own.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--backbone", default="bundled", show_default=True)
@click.option("--out", type=FolderOut, help="Keeps results as they come, report and plots.")
@click.option("--cost/--no-cost", default=True, show_default=True, help="Time and memory, each in a fresh process.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    *,
    folder: Path,
    methods: str,
    shots: int,
    max_images: int,
    test_share: float,
    seed: int,
    backbone: str,
    out: Path | None,
    cost: bool,
    device: str,
    as_json: bool,
) -> None:
    """Compare methods on FOLDER: sub-folders of images named after their classes, or train and test folders of such.

    All methods see the same images. Those that tune on every image (tpt) take long: leave them out with --methods.
    """
    with plainly(), progress() as bars:
        loading = bars.add_task(f"loading {backbone}", total=None)
        data = own_data(folder, test_share)
        towers = load_backbone(backbone, device=device)
        bars.remove_task(loading)
        limited = data.limited(max_images)
        assert data.train is not None
        notes().print(
            f"{len(data.classes)} classes; learning from {shots} images of each, drawn from {len(data.train.paths)}; "
            f"testing on {len(limited.test.paths)} of {len(data.test.paths)}"
        )
        plan = Plan("few-shot", [limited], with_controls(parse_contenders(methods)), (shots,), (seed,))
        run_plan(plan, towers, Asked(out, cost, "", device, as_json), bars)


def own_data(folder: Path, test_share: float) -> DataSet:
    """The one set below the folder, divided if it is not. Raises `DataError` for several sets."""
    found = read_data(folder)
    if len(found) > 1:
        raise DataError(f"{folder} holds {len(found)} sets ({', '.join(s.name for s in found[:5])}); name one of them")
    return found[0] if found[0].train is not None else halved(found[0].test, test_share=test_share, seed=SPLIT_SEED)
