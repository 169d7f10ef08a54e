"""`selftpt keys`: API keys in the file that the service reads. A running service notices changes within a second."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import click
from rich.table import Table

from service.commands.display import notes, results, write_json
from service.security.key_file import read_keys, write_keys
from service.security.keys import DEFAULT_TENANT, SCOPES, ApiKey, Scope, new_key, utc_now

file_option = click.option(
    "--file",
    "path",
    envvar="SELFTPT_API_KEYS_FILE",
    required=True,
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of API keys.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group()
def keys() -> None:
    """API keys: create, list and revoke them."""


@keys.command()
@file_option
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="May be repeated.  [default: classify]"
)
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose label sets it works with.")
@click.option("--images-per-minute", type=click.IntRange(min=1), help="Quota of images; none if not given.")
@click.option("--class-steps-per-minute", type=click.IntRange(min=1), help="Quota of classes x steps of adaptations.")
@click.option("--days", type=click.IntRange(min=1), help="Days until it expires; never if not given.")
@click.option("--note", default="", help="Whose it is, for the list.")
@json_option
def create(
    *,
    path: Path,
    scopes: tuple[str, ...],
    tenant: str,
    images_per_minute: int | None,
    class_steps_per_minute: int | None,
    days: int | None,
    note: str,
    as_json: bool,
) -> None:
    """Make a key and show it, this once: the file keeps a salted hash of it only."""
    known = read_keys(path) if path.exists() else {}
    key, token = new_key(
        frozenset(cast("tuple[Scope, ...]", scopes or ("classify",))),
        tenant=tenant,
        images_per_minute=images_per_minute,
        class_steps_per_minute=class_steps_per_minute,
        note=note,
        expires=None if days is None else utc_now() + timedelta(days=days),
    )
    write_keys(path, [*known.values(), key])
    if as_json:
        write_json({**shown(key), "key": token})
        return
    results().print(token, markup=False, soft_wrap=True)
    notes().print(f"key {key.id} for {', '.join(sorted(key.scopes))}; it is not shown again", markup=False)


@keys.command("list")
@file_option
@json_option
def list_keys(path: Path, as_json: bool) -> None:
    """All keys of the file, without their secrets."""
    found = sorted(read_keys(path).values(), key=lambda key: key.created)
    if as_json:
        write_json([shown(key) for key in found])
        return
    table = Table("id", "tenant", "scopes", "images/min", "class-steps/min", "status", "note", box=None, pad_edge=False)
    for key in found:
        quotas = [str(quota or "") for quota in (key.images_per_minute, key.class_steps_per_minute)]
        table.add_row(key.id, key.tenant, ", ".join(sorted(key.scopes)), *quotas, status(key), key.note)
    results().print(table if found else "no keys")


@keys.command()
@click.argument("key_id")
@file_option
def revoke(key_id: str, path: Path) -> None:
    """Make a key useless, by its id (the part between the underscores). It stays listed."""
    known = dict(read_keys(path))
    if key_id not in known:
        raise click.UsageError(f"there is no key {key_id!r} in {path}")
    if known[key_id].revoked is None:
        known[key_id] = known[key_id].model_copy(update={"revoked": utc_now()})
        write_keys(path, known.values())
    notes().print(f"revoked {key_id}", markup=False)


def shown(key: ApiKey) -> dict[str, object]:
    facts = key.model_dump(mode="json", exclude={"salt", "hash", "scopes"})
    return {**facts, "scopes": sorted(key.scopes), "status": status(key)}


def status(key: ApiKey, now: datetime | None = None) -> str:
    if key.revoked is not None:
        return "revoked"
    if not key.valid(now or utc_now()):
        return "expired"
    return "valid" if key.expires is None else f"valid until {key.expires:%Y-%m-%d}"
