"""The `selftpt` command: its subcommands by name, and how failures are said. The work is in `service/commands/`.

Built on click, which the HTTP server depends on anyway. A subcommand's module is imported only when it runs, so that
`selftpt --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version

import click
import httpx
from pydantic import ValidationError

from service.client import ServiceProblem
from service.process.openmp import wait_without_spinning

COMMANDS = {
    "serve": ("service.commands.serve", "Start the service."),
    "classify": ("service.commands.classify", "Classify images, with a running service or in this process."),
    "labels": ("service.commands.labels", "Label sets of a running service: upload, watch, teach by images, measure."),
    "train": ("service.commands.train", "Learn source prompts for a backbone from labelled images."),
    "eval": ("service.commands.evaluate", "Measure accuracy and calibration of adapters on labelled images."),
    "compare": ("service.commands.compare", "Compare all methods on a folder of your own labelled images."),
    "keys": ("service.commands.keys", "API keys: create, list and revoke them."),
    "bench": ("service.commands.bench", "Measure how fast a running service answers."),
    "doctor": ("service.commands.doctor", "Check the installation and say what to do."),
}
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that knows its subcommands by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), "evaluate" if cmd_name == "eval" else cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("self-tpt-service"), prog_name="selftpt")
def cli() -> None:
    """Zero-shot image classification whose prompts are adapted once per label set."""


def main() -> None:
    """Entry point: expected failures become one readable line and an exit code, unexpected ones keep their trace."""
    wait_without_spinning()
    try:
        code = cli.main(prog_name="selftpt", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.Abort:
        raise SystemExit(INTERRUPTED) from None
    except click.ClickException as failure:
        failure.show()
        code = failure.exit_code
    except (ServiceProblem, httpx.HTTPError, ValidationError, OSError) as failure:
        click.ClickException(readable(failure)).show()
        code = 1
    raise SystemExit(code if isinstance(code, int) else 0)


def readable(failure: Exception) -> str:
    if isinstance(failure, httpx.ConnectError):
        return f"no service answers at {failure.request.url.copy_with(path='/', query=None)} (start one: selftpt serve)"
    if isinstance(failure, httpx.TimeoutException):
        return f"{failure.request.url} did not answer in time"
    if isinstance(failure, ValidationError):
        return "\n".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in failure.errors())
    return str(failure) or type(failure).__name__
