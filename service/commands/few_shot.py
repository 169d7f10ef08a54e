"""`selftpt labels support, fit, evaluate, add-class`: label sets that learn from images, and how good they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from rich.table import Table

from service.client import Client, ServiceProblem
from service.commands.display import notes, progress, results, write_json
from service.commands.label_sets import api_key_option, follow, json_option, option_value, server_option, show_one
from service.schemas import EvaluationAnswer, EvaluationSource, Report

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif"}
WORST = 10
NOT_FOUND = 404

FolderThere = click.Path(exists=True, file_okay=False, path_type=Path)
folder_argument = click.argument("folder", type=FolderThere)


def class_folders(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Class names, from the names of the sub-folders, and the images in each."""
    for one in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        images = sorted(path for path in one.iterdir() if path.suffix.lower() in SUFFIXES)
        if images:
            yield one.name, images


def caption_of(image: Path) -> str | None:
    """The text file beside an image, of the same name but for the suffix."""
    file = image.with_suffix(".txt")
    return file.read_text(encoding="utf-8").strip() or None if file.is_file() else None


@click.command()
@click.argument("label_set")
@folder_argument
@server_option
@api_key_option
@json_option
def support(label_set: str, folder: Path, server: str, api_key: str | None, as_json: bool) -> None:
    """Upload support images: FOLDER has a folder per class; CAT.txt beside CAT.jpg is its caption."""
    found = list(class_folders(folder))
    if not found:
        raise click.UsageError(f"{folder} has no folders with images")
    with Client(server, api_key=api_key) as client, progress(counted=True) as bars:
        task = bars.add_task("uploading", total=len(found))
        for label, images in found:
            captions = [caption_of(image) for image in images]
            put(client, label_set, label, images, captions if any(captions) else None)
            bars.advance(task)
        answer = client.support(label_set)
    if as_json:
        write_json(answer.model_dump())
    else:
        notes().print(f"{answer.images} images of {len(answer.classes)} classes; at least {answer.fewest} of each")


def put(client: Client, label_set: str, label: str, images: list[Path], captions: list[str | None] | None) -> None:
    """Folders often have underscores where class names have blanks."""
    try:
        client.put_support(label_set, label, *images, captions=captions)
    except ServiceProblem as problem:
        if problem.status != NOT_FOUND or "_" not in label:
            raise
        client.put_support(label_set, label.replace("_", " "), *images, captions=captions)


@click.command()
@click.argument("label_set")
@click.option("--adapter", help="Method; the label set's own if it learns from images, else auto.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of the method.")
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), help="Seconds that it may take.")
@click.option("--cancel", is_flag=True, help="Cancel a running fit, or drop a finished one.")
@click.option("--no-wait", is_flag=True, help="Return at once instead of following it.")
@server_option
@api_key_option
@json_option
def fit(
    *,
    label_set: str,
    adapter: str | None,
    options: tuple[str, ...],
    deadline: float | None,
    cancel: bool,
    no_wait: bool,
    server: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Learn from the support images, and follow it."""
    with Client(server, api_key=api_key) as client:
        if cancel:
            client.cancel_fit(label_set)
            notes().print(f"no fit serves {label_set}")
            return
        chosen = dict(map(option_value, options))
        answer = client.fit(label_set, adapter=adapter, options=chosen, deadline_seconds=deadline)
        if not no_wait:
            follow(client, answer)
            answer = client.label_set(answer.id)
    show_one(answer, as_json)


@click.command()
@click.argument("label_set")
@click.argument("folder", required=False, type=FolderThere)
@click.option("--support", is_flag=True, help="Measure on the support images of the label set instead of FOLDER.")
@click.option("--adapter", help="Another method than the label set's own, on the same images.")
@click.option("--wait", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds for adapting.")
@server_option
@api_key_option
@json_option
def evaluate(
    *,
    label_set: str,
    folder: Path | None,
    support: bool,
    adapter: str | None,
    wait: float,
    server: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Measure on labelled images (FOLDER has a folder per class), beside plain zero-shot."""
    if support == (folder is not None):
        raise click.UsageError("give a FOLDER, or --support")
    images = [] if folder is None else [(label, image) for label, files in class_folders(folder) for image in files]
    if folder is not None and not images:
        raise click.UsageError(f"{folder} has no folders with images")
    source: EvaluationSource = "support" if support else "upload"
    with Client(server, api_key=api_key) as client, progress() as bars:
        bars.add_task("evaluating on " + (f"{len(images)} images" if images else "support images"), total=None)
        answer = client.evaluate(label_set, images, source=source, adapter=adapter, wait=wait)
    if as_json:
        write_json(answer.model_dump())
    else:
        show_evaluation(answer)


@click.command("add-class")
@click.argument("label_set")
@click.argument("names", nargs=-1, required=True)
@click.option("--no-wait", is_flag=True, help="Return once it is stored instead of adapted.")
@server_option
@api_key_option
@json_option
def add_class(
    *, label_set: str, names: tuple[str, ...], no_wait: bool, server: str, api_key: str | None, as_json: bool
) -> None:
    """Add classes: makes another label set that takes over the name and the support images."""
    with Client(server, api_key=api_key) as client:
        answer = client.add_classes(label_set, names)
        if not no_wait:
            follow(client, answer)
            answer = client.label_set(answer.id)
    show_one(answer, as_json)


def show_evaluation(answer: EvaluationAnswer) -> None:
    table = Table("", "accuracy", "ECE", box=None, pad_edge=False)
    for name, report in ((answer.served_by, answer.served), ("zero-shot", answer.zero_shot)):
        table.add_row(name, share(report.top1), share(report.ece))
    results().print(table)
    results().print(f"{answer.images} images, {len(answer.failures)} could not be read")
    for label, top1 in weakest(answer.served):
        results().print(f"  {share(top1)}  {label}")
    for failure in answer.failures:
        notes().print(f"{failure.filename}: {failure.error.detail}")


def weakest(report: Report) -> list[tuple[str, float]]:
    """The classes that are recognised least."""
    scored = sorted(report.per_class, key=lambda one: one.top1)
    return [(one.label, one.top1) for one in scored[:WORST]]


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:6.1%}"
