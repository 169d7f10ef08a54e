"""`selftpt labels`: label sets of a running service."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from rich.progress import TaskID
from rich.table import Table

from service.client import Client
from service.commands.display import notes, progress, results, write_json
from service.schemas import LabelSetAnswer, OptionValue

DEFAULT_SERVER = "http://127.0.0.1:8000"
SHORT_ID = 12

server_option = click.option(
    "--server", envvar="SELFTPT_URL", default=DEFAULT_SERVER, show_default=True, help="Address of the service."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def read_labels(text: str | None, file: Path | None) -> list[str]:
    """Labels from `a, b, c` and from a file with one per line; blank lines and lines that start with # do not count."""
    typed = (text or "").split(",")
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    return [
        label.strip()
        for label in [*typed, *(line for line in lines if not line.lstrip().startswith("#"))]
        if label.strip()
    ]


def option_value(text: str) -> tuple[str, OptionValue]:
    """`steps=5` as a name and the most specific value."""
    name, separator, value = text.partition("=")
    if not separator:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    if value.lower() in {"true", "false"}:
        return name, value.lower() == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


@click.group()
def labels() -> None:
    """Upload, list, show, watch and delete label sets."""


@labels.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--labels", "text", help="Class names, separated by commas.")
@click.option("--name", help="A name that points to this label set.")
@click.option("--adapter", help="Method; the service's default if not given.")
@click.option("--template", "templates", multiple=True, help="Prompt template with one {}; may be repeated.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of the method.")
@click.option("--no-wait", is_flag=True, help="Return once it is stored instead of adapted.")
@server_option
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
    as_json: bool,
) -> None:
    """Upload class names (FILE: one per line) and follow their adaptation."""
    names = read_labels(text, file)
    if not names:
        raise click.UsageError("no class names: give a FILE, or --labels 'cat, dog'")
    with Client(server) as client:
        chosen = dict(map(option_value, options))
        answer = client.create_label_set(names, name=name, adapter=adapter, templates=templates, options=chosen)
        if not no_wait:
            follow(client, answer)
            answer = client.label_set(answer.id)
    show_one(answer, as_json)


@labels.command("list")
@server_option
@json_option
def list_label_sets(server: str, as_json: bool) -> None:
    """All label sets."""
    with Client(server) as client:
        found = sorted(client.label_sets(), key=lambda summary: summary.created)
    if as_json:
        write_json([summary.model_dump() for summary in found])
        return
    table = Table("name", "id", "classes", "adapter", "status", "created", box=None, pad_edge=False)
    for one in found:
        created = datetime.fromtimestamp(one.created).strftime("%Y-%m-%d %H:%M")
        status = one.status if one.status in {"ready", "failed"} else f"{one.status} {one.progress:.0%}"
        table.add_row(one.name or "", one.id[:SHORT_ID], str(one.class_count), one.adapter, status, created)
    results().print(table if found else "no label sets")


@labels.command()
@click.argument("label_set")
@server_option
@json_option
def show(label_set: str, server: str, as_json: bool) -> None:
    """One label set, by id or name."""
    with Client(server) as client:
        show_one(client.label_set(label_set), as_json)


@labels.command()
@click.argument("label_set")
@server_option
@json_option
def watch(label_set: str, server: str, as_json: bool) -> None:
    """Follow an adaptation until it is done."""
    with Client(server) as client:
        follow(client, client.label_set(label_set))
        show_one(client.label_set(label_set), as_json)


@labels.command()
@click.argument("label_set")
@server_option
def delete(label_set: str, server: str) -> None:
    """Delete a label set, by id or name."""
    with Client(server) as client:
        client.delete_label_set(label_set)
    notes().print(f"deleted {label_set}")


def follow(client: Client, label_set: LabelSetAnswer) -> None:
    if label_set.status in {"ready", "failed"}:
        return
    with progress() as bars:
        task: TaskID = bars.add_task(f"adapting {label_set.class_count} classes ({label_set.adapter})", total=1.0)
        for _, done in client.watch_label_set(label_set.id):
            bars.update(task, completed=done)


def show_one(label_set: LabelSetAnswer, as_json: bool) -> None:
    if as_json:
        write_json(label_set.model_dump())
    else:
        facts = Table(box=None, show_header=False, pad_edge=False)
        for name, value in described(label_set):
            facts.add_row(f"[bold]{name}[/bold]", value)
        results().print(facts)
    if label_set.status == "failed":
        raise click.exceptions.Exit(1)


def described(one: LabelSetAnswer) -> list[tuple[str, str]]:
    shown = ", ".join(one.classes[:8]) + (", …" if len(one.classes) > 8 else "")
    facts = [
        ("id", one.id),
        ("name", one.name or "(none)"),
        ("status", one.status if one.status in {"ready", "failed"} else f"{one.status} {one.progress:.0%}"),
        ("adapter", one.adapter),
        ("classes", f"{one.class_count}: {shown}"),
    ]
    if one.error:
        facts.append(("error", one.error))
    if one.seconds is not None:
        facts.append(("adapted in", f"{one.seconds:.2f} s, {(one.bytes or 0) / 1024:.0f} KiB"))
    facts += [(name.replace("_", " "), str(value)) for name, value in one.info.items()]
    return facts
