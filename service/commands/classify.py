"""`selftpt classify`: files, folders and globs, by a running service or in this process; to the screen or to a file."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from service.commands.batch import BatchClassifier, answers, run_batch
from service.commands.display import bar, notes, progress, results, write_json
from service.commands.label_sets import api_key_option
from service.commands.labels import read_labels
from service.commands.remote import open_remotely
from service.commands.walking import walk
from service.schemas import ImageAnswer

Row = tuple[Path, ImageAnswer]


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--labels", "text", help="Class names, divided by commas, or a file with one per line.")
@click.option("--labels-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One name per line.")
@click.option("--label-set", help="Id or name of a label set of the service (with --server).")
@click.option("--server", envvar="SELFTPT_URL", help="Address of a running service.")
@api_key_option
@click.option("--local", is_flag=True, help="In this process; the default when no --server is given.")
@click.option("--adapter", help="Method, for example self-tpt or zero-shot.")
@click.option("--backbone", default="bundled", show_default=True, help="Backbone of a local run.")
@click.option("--device", default="auto", show_default=True, help="Device of a local run.")
@click.option("--top-k", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--wait", type=float, default=60.0, show_default=True, help="Seconds to wait for adapted prompts.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this .parquet, .csv or .jsonl; for folders of any size, and goes on where it was stopped.",
)
@click.option("--overwrite", is_flag=True, help="Replace an --out that is there.")
def classify(
    *,
    images: tuple[str, ...],
    text: str | None,
    labels_file: Path | None,
    label_set: str | None,
    server: str | None,
    api_key: str | None,
    local: bool,
    adapter: str | None,
    backbone: str,
    device: str,
    top_k: int,
    wait: float,
    form: str,
    as_json: bool,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Classify IMAGES (files, folders, globs) among labels. An image that cannot be read has an error, and stops
    nothing."""
    names = names_of(text, labels_file)
    if bool(names) == bool(label_set):
        raise click.UsageError("give class names (--labels, --labels-file) or a --label-set")
    remote = bool(server) and not local
    if label_set and not remote:
        raise click.UsageError("--label-set needs --server")

    def opened() -> BatchClassifier[Any]:
        if server and not local:
            return open_remotely(server, api_key, names, label_set=label_set, adapter=adapter, top_k=top_k, wait=wait)
        # Here, so that classifying by a service does not load torch.
        from service.commands.local import open_locally  # noqa: PLC0415

        return open_locally(names, backbone_name=backbone, device=device, adapter_name=adapter or "auto", top_k=top_k)

    if out is None:
        show(images, opened, "json" if as_json else form)
        return
    if out.exists() and not overwrite:
        raise click.UsageError(f"{out} is there already: --overwrite replaces it")
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    place = {"server": server} if remote else {"backbone": backbone}
    about = {"images": list(images), "labels": label_set or digest, "adapter": adapter, "top_k": top_k, **place}
    found, failed = run_batch(images, out, about, opened)
    notes().print(f"{found} images in {out}, {failed} of them with an error", soft_wrap=True)


def names_of(text: str | None, file: Path | None) -> list[str]:
    if text is not None and file is None and Path(text).is_file():
        return read_labels(None, Path(text))
    return read_labels(text, file)


def show(images: Sequence[str], opened: Callable[[], BatchClassifier[Any]], form: str) -> None:
    """All on the screen, once all are there. Exits with 1 when no image could be read."""
    found = list({one.path: one for one in walk(images)}.values())
    if not found:
        raise click.UsageError("no image found")
    classifier = opened()
    rows: list[Row] = []
    with progress(counted=True) as bars:
        task = bars.add_task("classifying", total=len(found))
        for group in answers(classifier, found):
            rows += [(one.path, answer) for one, answer in group]
            bars.advance(task, len(group))
    classifier.close()
    if classifier.pending:
        notes().print("[yellow]some answers are plain zero-shot: the prompts were still being adapted[/yellow]")
    write(rows, form)
    if all(answer.error for _, answer in rows):
        raise click.exceptions.Exit(1)


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
