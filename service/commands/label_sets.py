"""What the commands on label sets of a running service share: options, following one, showing one."""

from __future__ import annotations

import click
from rich.progress import TaskID
from rich.table import Table

from service.client import Client
from service.commands.display import notes, progress, results, write_json
from service.schemas import LabelSetAnswer, OptionValue

DEFAULT_SERVER = "http://127.0.0.1:8000"
FINAL = {"ready", "failed", "awaiting-support"}

server_option = click.option(
    "--server", envvar="SELFTPT_URL", default=DEFAULT_SERVER, show_default=True, help="Address of the service."
)
api_key_option = click.option("--api-key", envvar="SELFTPT_API_KEY", help="Key of the service, if it asks for one.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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


def follow(client: Client, label_set: LabelSetAnswer) -> None:
    """Shows the progress. Ctrl-C ends the showing, not the work: that goes on in the service."""
    if label_set.status in FINAL:
        return
    with progress() as bars:
        task: TaskID = bars.add_task(f"adapting {label_set.class_count} classes ({label_set.adapter})", total=1.0)
        try:
            client.follow(label_set.id, lambda status, done: bars.update(task, completed=done))
        except KeyboardInterrupt:
            bars.stop()
            notes().print(going_on(label_set), markup=False, soft_wrap=True)
            raise


def going_on(label_set: LabelSetAnswer) -> str:
    ends = f"labels delete {label_set.id}" if label_set.fit is None else f"labels fit {label_set.id} --cancel"
    return f"it goes on in the service; follow it: selftpt labels watch {label_set.id}; end it: selftpt {ends}"


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
        ("status", one.status if one.status in FINAL else f"{one.status} {one.progress:.0%}"),
        ("adapter", one.adapter),
        ("classes", f"{one.class_count}: {shown}"),
    ]
    if one.error:
        facts.append(("error", one.error))
    if one.seconds is not None:
        facts.append(("adapted in", f"{one.seconds:.2f} s, {(one.bytes or 0) / 1024:.0f} KiB"))
    facts += [(name.replace("_", " "), str(value)) for name, value in one.info.items()]
    return facts
