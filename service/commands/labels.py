"""`selftpt labels`: label sets of a running service."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from rich.table import Table

from service.client import Client
from service.commands.display import notes, results, write_json
from service.commands.few_shot import add_class, evaluate, fit, support
from service.commands.label_sets import (
    FINAL,
    api_key_option,
    follow,
    json_option,
    option_value,
    server_option,
    show_one,
)
from service.commands.support_images import support_images

SHORT_ID = 12


def read_labels(text: str | None, file: Path | None) -> list[str]:
    """Labels from `a, b, c` and from a file with one per line; blank lines and lines that start with # do not count."""
    typed = (text or "").split(",")
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    return [
        label.strip()
        for label in [*typed, *(line for line in lines if not line.lstrip().startswith("#"))]
        if label.strip()
    ]


@click.group()
def labels() -> None:
    """Upload, list, show, watch and delete label sets; teach them by images and measure them."""


@labels.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--labels", "text", help="Class names, separated by commas.")
@click.option("--name", help="A name that points to this label set.")
@click.option("--adapter", help="Method; the service's default if not given.")
@click.option("--template", "templates", multiple=True, help="Prompt template with one {}; may be repeated.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of the method.")
@click.option("--no-wait", is_flag=True, help="Return once it is stored instead of adapted.")
@server_option
@api_key_option
@json_option
def push(
    *,
    file: Path | None,
    text: str | None,
    name: str | None,
    adapter: str | None,
    templates: tuple[str, ...],
    options: tuple[str, ...],
    no_wait: bool,
    server: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Upload class names (FILE: one per line) and follow their adaptation."""
    names = read_labels(text, file)
    if not names:
        raise click.UsageError("no class names: give a FILE, or --labels 'cat, dog'")
    with Client(server, api_key=api_key) as client:
        chosen = dict(map(option_value, options))
        answer = client.create_label_set(names, name=name, adapter=adapter, templates=templates, options=chosen)
        if not no_wait:
            follow(client, answer)
            answer = client.label_set(answer.id)
    show_one(answer, as_json)


@labels.command("list")
@server_option
@api_key_option
@json_option
def list_label_sets(server: str, api_key: str | None, as_json: bool) -> None:
    """All label sets."""
    with Client(server, api_key=api_key) as client:
        found = sorted(client.label_sets(), key=lambda summary: summary.created)
    if as_json:
        write_json([summary.model_dump() for summary in found])
        return
    table = Table("name", "id", "classes", "adapter", "status", "created", box=None, pad_edge=False)
    for one in found:
        created = datetime.fromtimestamp(one.created).strftime("%Y-%m-%d %H:%M")
        status = one.status if one.status in FINAL else f"{one.status} {one.progress:.0%}"
        table.add_row(one.name or "", one.id[:SHORT_ID], str(one.class_count), one.adapter, status, created)
    results().print(table if found else "no label sets")


@labels.command()
@click.argument("label_set")
@server_option
@api_key_option
@json_option
def show(label_set: str, server: str, api_key: str | None, as_json: bool) -> None:
    """One label set, by id or name."""
    with Client(server, api_key=api_key) as client:
        show_one(client.label_set(label_set), as_json)


@labels.command()
@click.argument("label_set")
@server_option
@api_key_option
@json_option
def watch(label_set: str, server: str, api_key: str | None, as_json: bool) -> None:
    """Follow an adaptation until it is done."""
    with Client(server, api_key=api_key) as client:
        follow(client, client.label_set(label_set))
        show_one(client.label_set(label_set), as_json)


@labels.command()
@click.argument("label_set")
@server_option
@api_key_option
def delete(label_set: str, server: str, api_key: str | None) -> None:
    """Delete a label set, by id or name."""
    with Client(server, api_key=api_key) as client:
        client.delete_label_set(label_set)
    notes().print(f"deleted {label_set}")


for command in (support, support_images, fit, evaluate, add_class):
    labels.add_command(command)
