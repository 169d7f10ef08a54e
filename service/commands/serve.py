"""`selftpt serve`: settings from options and environment, a socket, and the server with its graceful end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click
import uvicorn

from service.commands.cluster import serve_cluster
from service.commands.display import notes
from service.process.allocator import keep_large_blocks
from service.process.garbage import leave_out_what_stays
from service.settings import Settings

BACKLOG = 2048
EXAMPLE = "examples/images/cat.jpg"
LABELS = ("cat", "dog", "cup of coffee", "rocket")


class AnnouncingServer(uvicorn.Server):
    """Says where it listens once the start-up is through, so that the address works when it is read; at the end lets
    go of those who wait for an adaptation before it waits for requests in flight."""

    def __init__(self, config: uvicorn.Config, address: str, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self.address = address
        self.drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            leave_out_what_stays()
            announce(self.address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.drain()
        await super().shutdown(sockets=sockets)


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: 8000]")
@click.option("--backbone", help="`bundled`, `architecture:pretrained`, or a local checkpoint.")
@click.option("--device", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of the embedded store.")
@click.option("--redis-url", help="Keep label sets and class states in Redis instead.")
@click.option("--insecure", "allow_anonymous", is_flag=True, default=None, help="Let others in without API keys.")
@click.option("--preload", multiple=True, help="Label set to load before readiness: id, name or file; repeatable.")
@click.option("--cluster", is_flag=True, help="Front ends and workers on Ray Serve; needs Redis. SIGHUP replaces all.")
@click.option("--shape", multiple=True, help="With --cluster: NAME=VALUE, such as workers_max=8; repeatable.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def serve(preload: tuple[str, ...], cluster: bool, shape: tuple[str, ...], **options: object) -> None:
    """Start the service. Options that are not given come from SELFTPT_* variables."""
    keep_large_blocks()
    options["preload"] = ",".join(preload) or None
    settings = Settings(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]  # click's values are checked by Settings itself
    if cluster:
        serve_cluster(settings, shape)
        return
    if settings.log_level != "debug":
        logging.getLogger().addFilter(is_ours_or_matters)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    listener = listen(settings.host, settings.port)
    notes().print(f"loading {settings.backbone} …", markup=False)
    # Only now: torch takes seconds to import, and a wrong setting or a taken port should be said at once.
    from service.app import create_app  # noqa: PLC0415

    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies or "",
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=int(settings.shutdown_timeout) + 1,
    )
    runtime = app.state.runtime
    logging.getLogger("uvicorn.error").addFilter(lambda record: not (runtime.start_failure and is_traceback(record)))
    server = AnnouncingServer(config, address_of(listener), runtime.drain)
    try:
        server.run(sockets=[listener])
    except SystemExit:
        if runtime.start_failure:  # the server would end here with its own code and without a word
            raise click.ClickException(runtime.start_failure) from None
        raise
    finally:
        leave_if_busy(runtime.device_busy)


def is_traceback(record: logging.LogRecord) -> bool:
    return "Traceback (most recent call last)" in record.getMessage()


def leave_if_busy(busy: bool) -> None:
    """A device thread that did not end in time would crash the interpreter while that takes itself apart. Everybody
    was answered and the stores are closed, so the process may as well end here."""
    if not busy:
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def is_ours_or_matters(record: logging.LogRecord) -> bool:
    """open_clip tells each step of loading on the root logger itself; a filter there sees only such records."""
    return record.levelno >= logging.WARNING


def stop(number: int, frame: FrameType | None) -> None:
    """Before the server runs this ends the process at once; the server puts its own graceful handler in front, and
    hands the signal on to this one when everyone was answered."""
    raise SystemExit(0)


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise click.ClickException(
            f"cannot listen on {host} port {port}: {reason} (choose another with --port)"
        ) from failure


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def announce(address: str) -> None:
    image = EXAMPLE if Path(EXAMPLE).exists() else "photo.jpg"
    lines = [
        "",
        f"  selftpt is ready on {address}",
        f"  page {address}/   API {address}/docs   metrics {address}/metrics",
        "",
        "  Try it:",
        f"    {example(address, image)}",
        "",
    ]
    notes().print("\n".join(lines), markup=False, soft_wrap=True)


def example(address: str, image: str) -> str:
    labels = " ".join(f"-F labels={name!r}" if " " in name else f"-F labels={name}" for name in LABELS)
    return f"curl -F images=@{image} {labels} {address}/v1/classify"
