"""`selftpt eval`: accuracy and calibration of methods on labelled images, each beside its controls. Offline."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from rich.progress import Progress

from adapters import METHOD_NAMES
from adapters.clip import Backbone, load_backbone
from adapters.evaluation.controls import full_table
from adapters.evaluation.datasets import FeatureSet, encode, read_folder
from adapters.evaluation.protocol import Method, Result, compare, served
from adapters.evaluation.report import markdown, records
from adapters.training.source_prompts import source_features
from adapters.training.stage_one import Report
from service.commands.display import notes, progress, results, write_json
from service.commands.local import plainly
from service.commands.train import reporter

FolderThere = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("eval")
@click.option("--data", required=True, type=FolderThere, help="A folder of class folders, or a folder of such sets.")
@click.option(
    "--adapter", "names", multiple=True, type=click.Choice(METHOD_NAMES), help="May be repeated; default all."
)
@click.option("--source", type=FolderThere, help="Labelled source images: adds the trained controls to the table.")
@click.option("--backbone", default="bundled", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Keeps report, features and controls.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one entry per method, set and seed.")
def evaluate(
    *,
    data: Path,
    names: tuple[str, ...],
    source: Path | None,
    backbone: str,
    seeds: int,
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure accuracy and calibration (top-1 and ECE, in percent) of adapters on labelled images."""
    if source and not out:
        raise click.UsageError("--source needs --out, where the trained controls are kept")
    cache = out / "features" if out else None
    with plainly(), progress() as bars:
        bars.add_task(f"loading {backbone}", total=None)
        towers = load_backbone(backbone, device=device)
        sets = [encoded(folder, towers, cache, bars) for folder in sets_below(data)]
        methods: dict[str, Method] = {name: served(name, towers) for name in names or METHOD_NAMES}
        if source and out:
            features = source_features(source, towers, cache=cache)
            methods |= full_table(towers, features, seeds=range(seeds), folder=out / "controls", tell=teller(bars))
        found = measured(sets, methods, seeds, bars)
    if as_json:
        write_json(records(found))
    else:
        results().print(markdown(found), markup=False)
    if out:
        keep(out, found)


def sets_below(data: Path) -> list[Path]:
    """The folder itself when its sub-folders are classes, else its sub-folders."""
    folders = sorted(entry for entry in data.iterdir() if entry.is_dir())
    if not folders:
        raise click.UsageError(f"{data} has no sub-folders: one per class is expected")
    is_collection = all(any(entry.is_dir() for entry in folder.iterdir()) for folder in folders)
    return folders if is_collection else [data]


def encoded(folder: Path, backbone: Backbone, cache: Path | None, bars: Progress) -> FeatureSet:
    images = read_folder(folder)
    task = bars.add_task(f"encoding {images.name}", total=len(images.paths))
    features = encode(images, backbone, cache=cache, progress=lambda done: bars.update(task, completed=done))
    bars.remove_task(task)
    return features


def measured(sets: Sequence[FeatureSet], methods: Mapping[str, Method], seeds: int, bars: Progress) -> list[Result]:
    task = bars.add_task("measuring", total=len(sets) * len(methods) * seeds)
    found: list[Result] = []
    for result in compare(sets, methods, seeds=range(seeds)):
        found.append(result)
        bars.update(task, advance=1, description=f"measuring {result.method} on {result.set_name}")
    return found


def teller(bars: Progress) -> Callable[[str], Report | None]:
    return lambda name: reporter(bars, bars.add_task(f"training {name}", total=None))


def keep(out: Path, found: Sequence[Result]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(markdown(found) + "\n", encoding="utf-8")
    (out / "report.json").write_text(json.dumps(records(found), indent=1) + "\n", encoding="utf-8")
    notes().print(f"report: {out / 'report.md'}")
