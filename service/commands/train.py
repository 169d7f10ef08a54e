"""`selftpt train`: source prompts (the first stage of Self-TPT) for one backbone, from labelled images. Offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import click
from rich.progress import Progress, TaskID

from adapters.clip import Backbone, load_backbone
from adapters.evaluation.datasets import FeatureSet, encode, merged
from adapters.evaluation.layouts import read_data
from adapters.training.source_prompts import SHOTS, SOURCE_SETS, source_features, train_source_prompts
from adapters.training.stage_one import Report, StageOneSettings
from service.commands.display import notes, progress, results
from service.commands.local import plainly

RESUME = "unfinished.safetensors"
"""File in the folder of the prompts that keeps an unfinished run."""


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of class folders, of train and test folders, or of standard sets with their split files.",
)
@click.option("--backbone", default="bundled", show_default=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that the source prompts are written to.",
)
@click.option("--name", help="Name that answers carry.  [default: name of the folder]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the images; sets --steps.")
@click.option("--steps", type=click.IntRange(min=1), help=f"[default: {StageOneSettings().steps}]")
@click.option("--device", default="auto", show_default=True)
def train(
    *,
    data: Path,
    backbone: str,
    out: Path,
    name: str | None,
    seed: int,
    epochs: int | None,
    steps: int | None,
    device: str,
) -> None:
    """Learn source prompts for a backbone from labelled images. A run that was stopped goes on where it was."""
    with plainly(), progress() as bars:
        bars.add_task(f"loading {backbone}", total=None)
        towers = load_backbone(backbone, device=device)
        encoding = bars.add_task("encoding images", total=None)
        features = learnable(data, towers, out / "features", lambda done: bars.update(encoding, completed=done))
        settings = replace(StageOneSettings(seed=seed), **chosen_steps(features, epochs, steps))
        training = bars.add_task("training", total=settings.steps)
        prompts = train_source_prompts(
            towers,
            features,
            settings,
            name=name or out.name,
            report=reporter(bars, training),
            resume=out / RESUME,
        )
    prompts.save(out)
    (out / RESUME).unlink(missing_ok=True)
    notes().print(f"learnt from {len(features.labels_N)} images of {len(features.classes)} classes")
    results().print(str(out))


def learnable(data: Path, backbone: Backbone, cache: Path, told: Callable[[int], None]) -> FeatureSet:
    """Image features to learn from. Of data that is divided only the train parts are taken, 16 images a class: what a
    table is later made of must not have been seen."""
    if any((data / name).is_dir() for name in SOURCE_SETS):
        return source_features(data, backbone, cache=cache, progress=told)
    sets = read_data(data)
    if all(one.train is None for one in sets):
        parts = [one.test.first(SHOTS) for one in sets]
    else:
        parts = [one.train.drawn(SHOTS, seed=0) for one in sets if one.train is not None]
    return merged([encode(part, backbone, cache=cache, progress=told) for part in parts], "source")


def chosen_steps(features: FeatureSet, epochs: int | None, steps: int | None) -> Mapping[str, int]:
    """A step sees some images of some classes; an epoch is as many steps as see each image once on average."""
    if steps is not None:
        return {"steps": steps}
    if epochs is None:
        return {}
    defaults = StageOneSettings()
    per_step = min(defaults.classes_per_step, len(features.classes)) * defaults.images_per_class
    return {"steps": max(1, round(epochs * len(features.labels_N) / per_step))}


def reporter(bars: Progress, task: TaskID) -> Report:
    def report(done: int, total: int, losses: Mapping[str, float]) -> None:
        said = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        bars.update(task, completed=done, total=total, description=f"training ({said})")

    return report
