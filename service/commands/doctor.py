"""`selftpt doctor`: one line per thing that must be right, each ok, warn or fail, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click
from pydantic import ValidationError

from service.commands.checks_installation import check_extras, check_packages, check_python, check_torch
from service.commands.checks_model import check_backbone, check_device, check_engine
from service.commands.checks_surroundings import check_data_dir, check_keys, check_port, check_redis
from service.commands.display import notes, results, write_json
from service.commands.findings import COLOURS, Check, Finding
from service.settings import Settings, unknown_variables


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Check the installation and say what to do. Fails when something would keep the service from starting."""
    try:
        settings = Settings()
    except ValidationError as failure:
        bad = [
            Finding("fail", "settings", f"SELFTPT_{e['loc'][0]}: {e['msg']}".upper(), "correct it")
            for e in failure.errors()
        ]
        report(bad, as_json)
    else:
        with notes().status("checking …"):
            found = [finding for check in CHECKS for finding in check(settings)]
        report(found, as_json)


def report(found: list[Finding], as_json: bool) -> None:
    if as_json:
        write_json([asdict(finding) for finding in found])
    else:
        console = results()
        for one in found:
            colour = COLOURS[one.level]
            console.print(f"[{colour}]{one.level:<4}[/{colour}]  [bold]{one.subject:<15}[/bold] {one.fact}")
            if one.advice:
                console.print(f"{'':23}→ {one.advice}")
    if any(finding.level == "fail" for finding in found):
        raise click.exceptions.Exit(1)


def check_variables(settings: Settings) -> Iterator[Finding]:
    """A misspelt variable is silently without effect otherwise."""
    for name in unknown_variables():
        advice = "correct the name: docs/configuration.md has them all"
        yield Finding("warn", "settings", f"no setting reads {name}", advice)


CHECKS: tuple[Check, ...] = (
    check_variables,
    check_python,
    check_packages,
    check_torch,
    check_extras,
    check_device,
    check_backbone,
    check_engine,
    check_data_dir,
    check_redis,
    check_keys,
    check_port,
)
