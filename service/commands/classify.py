"""`selftpt classify`: files, folders and globs, either by a running service or in this process."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from glob import glob
from itertools import islice
from pathlib import Path

import click
from rich.table import Table

from service.client import Client
from service.commands.display import bar, notes, progress, results, write_json
from service.commands.labels import read_labels
from service.schemas import ImageAnswer

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
AT_ONCE = 16

Row = tuple[Path, ImageAnswer]


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--labels", "text", help="Class names, separated by commas.")
@click.option("--labels-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One name per line.")
@click.option("--label-set", help="Id or name of a label set of the service (with --server).")
@click.option("--server", envvar="SELFTPT_URL", help="Address of a running service.")
@click.option("--local", is_flag=True, help="In this process; the default when no --server is given.")
@click.option("--adapter", help="Method, for example self-tpt or zero-shot.")
@click.option("--backbone", default="bundled", show_default=True, help="Backbone of a local run.")
@click.option("--device", default="auto", show_default=True, help="Device of a local run.")
@click.option("--top-k", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--wait", type=float, default=60.0, show_default=True, help="Seconds to wait for adapted prompts.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def classify(
    *,
    images: tuple[str, ...],
    text: str | None,
    labels_file: Path | None,
    label_set: str | None,
    server: str | None,
    local: bool,
    adapter: str | None,
    backbone: str,
    device: str,
    top_k: int,
    wait: float,
    form: str,
    as_json: bool,
) -> None:
    """Classify IMAGES (files, folders, globs) among labels."""
    files = found(images)
    names = read_labels(text, labels_file)
    if bool(names) == bool(label_set):
        raise click.UsageError("give class names (--labels, --labels-file) or a --label-set")
    if local or not server:
        if not names:
            raise click.UsageError("--label-set needs --server")
        # Here, so that classifying by a service does not load torch.
        from service.commands.local import classify_locally  # noqa: PLC0415

        rows = classify_locally(
            files, names, backbone_name=backbone, device=device, adapter_name=adapter or "auto", top_k=top_k
        )
    else:
        rows = classify_remotely(
            files, server, labels=names, label_set=label_set, adapter=adapter, top_k=top_k, wait=wait
        )
    write(rows, "json" if as_json else form)
    if all(answer.error for _, answer in rows):
        raise click.exceptions.Exit(1)


def found(patterns: Sequence[str]) -> list[Path]:
    """Image files, in the order of the arguments; a folder stands for the images below it."""
    files: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in SUFFIXES)
        else:
            matches = [path] if path.is_file() else sorted(map(Path, glob(pattern, recursive=True)))
        if not matches:
            raise click.UsageError(f"no image found for {pattern!r}")
        files.update(dict.fromkeys(matches))
    return list(files)


def groups(files: Sequence[Path]) -> Iterator[list[Path]]:
    waiting = iter(files)
    while group := list(islice(waiting, AT_ONCE)):
        yield group


def classify_remotely(
    files: Sequence[Path],
    server: str,
    *,
    labels: Sequence[str],
    label_set: str | None,
    adapter: str | None,
    top_k: int,
    wait: float,
) -> list[Row]:
    rows: list[Row] = []
    adapted, used = True, ""
    with Client(server) as client, progress(counted=True) as bars:
        task = bars.add_task("classifying", total=len(files))
        for group in groups(files):
            answer = client.classify(
                *group, labels=labels or None, label_set=label_set, adapter=adapter, top_k=top_k, wait=wait
            )
            rows += zip(group, answer.results, strict=True)
            adapted, used = adapted and answer.adapted, answer.adapter
            bars.advance(task, len(group))
    if not adapted and used != "zero-shot":
        notes().print("[yellow]some answers are plain zero-shot: the prompts were still being adapted[/yellow]")
    return rows


def write(rows: Sequence[Row], form: str) -> None:
    if form == "json":
        write_json([{"image": str(path), **answer.model_dump(exclude_none=True)} for path, answer in rows])
    elif form == "csv":
        write_csv(rows)
    else:
        write_table(rows)


def write_csv(rows: Sequence[Row]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(["image", "rank", "label", "score", "error"])
    for path, answer in rows:
        if answer.error:
            writer.writerow([path, "", "", "", answer.error.detail])
        for rank, prediction in enumerate(answer.predictions or [], start=1):
            writer.writerow([path, rank, prediction.label, f"{prediction.score:.6f}", ""])


def write_table(rows: Sequence[Row]) -> None:
    table = Table("image", "label", "score", "", box=None, pad_edge=False)
    for path, answer in rows:
        if answer.error:
            table.add_row(str(path), f"[red]{answer.error.detail}[/red]", "", "")
        for rank, one in enumerate(answer.predictions or []):
            label = f"[bold]{one.label}[/bold]" if rank == 0 else one.label
            table.add_row(str(path) if rank == 0 else "", label, f"{one.score:.1%}", bar(one.score))
    results().print(table)
