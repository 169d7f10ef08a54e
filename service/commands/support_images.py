"""`selftpt labels support-images`: which images a label set learns from, and to have them back as files."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from service.client import Client
from service.commands.display import notes, progress, results, write_json
from service.commands.label_sets import api_key_option, json_option, server_option
from service.images.formats import sniffed_type
from service.schemas import SupportClass, SupportImageAnswer

SHORT_DIGEST = 12
SUFFIXES = {"image/jpeg": ".jpg"}
"""Other types are called as their suffix is."""

UNSAFE = str.maketrans(dict.fromkeys('/\\:*?"<>|\0', "_"))


@click.command("support-images")
@click.argument("label_set")
@click.option("--class", "label", help="Of this class only.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to download them to.")
@server_option
@api_key_option
@json_option
def support_images(
    *, label_set: str, label: str | None, out: Path | None, server: str, api_key: str | None, as_json: bool
) -> None:
    """List the support images; with --out download them, a folder per class, as `labels support` takes them."""
    with Client(server, api_key=api_key) as client:
        found = [client.class_support(label_set, label)] if label else client.support(label_set).classes
        if out is not None:
            download(client, label_set, found, out)
    if as_json:
        write_json([one.model_dump() for one in found])
    elif out is None:
        show(found)


def download(client: Client, label_set: str, classes: list[SupportClass], out: Path) -> None:
    count = sum(one.count for one in classes)
    with progress(counted=True) as bars:
        task = bars.add_task("downloading", total=count)
        for one in classes:
            folder = out / folder_name(one.label)
            folder.mkdir(parents=True, exist_ok=True)
            for image in one.images:
                write(folder, image, client.support_image(label_set, image.digest))
                bars.advance(task)
    notes().print(f"{count} images of {len(classes)} classes in {out}", soft_wrap=True)


def write(folder: Path, image: SupportImageAnswer, data: bytes) -> None:
    """The caption goes beside it, where `labels support` looks for it."""
    kind = sniffed_type(data) or ""
    name = image.digest[:SHORT_DIGEST].translate(UNSAFE)
    (folder / (name + SUFFIXES.get(kind, f".{kind.rpartition('/')[2]}"))).write_bytes(data)
    if image.caption:
        (folder / f"{name}.txt").write_text(image.caption, encoding="utf-8")


def folder_name(label: str) -> str:
    """A class may be called anything; its folder stays one folder within the given one."""
    plain = label.translate(UNSAFE)
    return f"_{plain}" if plain.startswith(".") else plain


def show(classes: list[SupportClass]) -> None:
    table = Table("class", "digest", "KiB", "caption", box=None, pad_edge=False)
    for one in classes:
        for place, image in enumerate(one.images):
            label = one.label if place == 0 else ""
            table.add_row(label, image.digest[:SHORT_DIGEST], f"{image.bytes / 1024:.1f}", image.caption or "")
    results().print(table if any(one.count for one in classes) else "no support images")
