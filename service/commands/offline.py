"""`selftpt train` and `selftpt eval`: hand over to the offline code of `adapters`, which shows its own progress."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

Folder = click.Path(file_okay=False, path_type=Path)
Data = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--data", required=True, type=Data, help="Folder with one sub-folder of images per class.")
@click.option("--backbone", default="bundled", show_default=True)
@click.option("--out", required=True, type=Folder, help="Where the source prompts are written.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data; the method's default if not given.")
@click.option("--device", default="auto", show_default=True)
def train(data: Path, backbone: str, out: Path, **options: object) -> None:
    """Learn source prompts (the first stage of Self-TPT) for a backbone from labelled images."""
    run("adapters.training.source_prompts", {"data": data, "backbone": backbone, "out": out, **options})


@click.command("eval")
@click.option("--data", required=True, type=Data, help="Folder of labelled images, or of several such sets.")
@click.option("--adapter", "adapters", multiple=True, help="Method to measure; may be repeated. All if not given.")
@click.option("--backbone", default="bundled", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--out", type=Folder, help="Where the report is written.")
@click.option("--device", default="auto", show_default=True)
def evaluate(data: Path, adapters: tuple[str, ...], backbone: str, **options: object) -> None:
    """Measure accuracy and calibration (top-1, ECE) of adapters on labelled images."""
    run("adapters.evaluation", {"data": data, "adapter": list(adapters), "backbone": backbone, **options})


def run(module: str, options: dict[str, object]) -> None:
    """Calls `main(arguments)` of an offline module. It may need packages that serving does not."""
    try:
        program = import_module(module)
    except ModuleNotFoundError as missing:
        raise click.ClickException(
            f"{missing.name} is not installed; offline work needs: pip install 'self-tpt-service[train]'"
        ) from missing
    program.main(arguments(options))


def arguments(options: dict[str, object]) -> list[str]:
    """Options as a command line: lists repeat their option, None is left out."""
    words: list[str] = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                words += [f"--{name.replace('_', '-')}", str(one)]
    return words
