"""`selftpt doctor`: one line per thing that must be right, each ok, warn or fail, with what to do about it."""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Literal

import click
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.commands.display import notes, results, write_json
from service.settings import Settings

OLDEST_PYTHON = (3, 10)
FREE_BYTES = 500 * 1024 * 1024
PACKAGES = ("torch", "torchvision", "open_clip_torch", "fastapi", "uvicorn", "redis", "pillow", "safetensors")
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` says what to do; it is empty when all is well."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    fact: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]


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


def check_python(settings: Settings) -> Iterator[Finding]:
    fact = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("fail", "python", fact, "Python 3.10 or newer is needed")
    else:
        yield Finding("ok", "python", fact)


def check_packages(settings: Settings) -> Iterator[Finding]:
    versions: list[str] = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding("fail", "packages", f"{name} is missing", "pip install self-tpt-service")
    yield Finding("ok", "packages", ", ".join(versions))


def check_torch(settings: Settings) -> Iterator[Finding]:
    """The most common broken installation: two builds of torch and torchvision that do not fit."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as failure:
        reason = str(failure).splitlines()[0]
        advice = "install both in one command: pip install --force-reinstall torch torchvision"
        yield Finding("fail", "torch", f"torchvision does not fit torch: {reason}", advice)
    else:
        yield Finding("ok", "torch", "torch and torchvision fit each other")


def check_device(settings: Settings) -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
        clip = importlib.import_module("adapters.clip")
        errors = importlib.import_module("adapters.errors")
    except (ImportError, OSError, RuntimeError) as failure:
        yield Finding("fail", "device", str(failure).splitlines()[0], "see the line about torch")
        return
    try:
        device = clip.choose_device(settings.device)
    except errors.BackboneError as failure:
        yield Finding("fail", "device", str(failure), "set SELFTPT_DEVICE=auto")
        return
    threads = settings.compute_threads
    fact = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} compute threads"
    yield Finding("ok", "device", f"{device} ({fact})")
    if device.type == "cpu" and threads > (os.cpu_count() or 1):
        yield Finding("warn", "threads", f"{threads} on {os.cpu_count()} cores", "set SELFTPT_THREADS lower")


def check_backbone(settings: Settings) -> Iterator[Finding]:
    """Loads it for good: a file that is there may still not load."""
    try:
        clip = importlib.import_module("adapters.clip")
        errors = importlib.import_module("adapters.errors")
    except (ImportError, OSError, RuntimeError):
        return
    start = perf_counter()
    try:
        backbone = clip.load_backbone(
            settings.backbone,
            device=settings.device,
            precision=settings.precision,
            source_dir=settings.source_prompts,
        )
    except errors.BackboneError as failure:
        advice = "set SELFTPT_BACKBONE=bundled, or name a local checkpoint as architecture:file"
        yield Finding("fail", "backbone", str(failure), advice)
        return
    seconds = perf_counter() - start
    fact = f"{backbone.name}: {backbone.embed_dim} dimensions, {backbone.precision}, loaded in {seconds:.1f} s"
    yield Finding("ok", "backbone", fact)
    if backbone.source_prompts == "none":
        advice = "self-tpt then starts from the template's words; learn source prompts with: selftpt train"
        yield Finding("warn", "source prompts", "none for this backbone", advice)
    else:
        yield Finding("ok", "source prompts", backbone.source_prompts)


def check_data_dir(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError as failure:
        yield Finding(
            "fail", "data folder", f"{folder}: {failure.strerror}", "set SELFTPT_DATA_DIR to a writable folder"
        )
        return
    free = shutil.disk_usage(folder).free
    fact = f"{folder} is writable, {free / 1e9:.0f} GB free"
    if free < FREE_BYTES:
        yield Finding("warn", "data folder", fact, "free some space: label sets and class states are kept here")
    else:
        yield Finding("ok", "data folder", fact)


def check_redis(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url is None:
        yield Finding("ok", "redis", "not used (SELFTPT_REDIS_URL is not set): the embedded store is")
        return
    try:
        fact = asyncio.run(ping(settings.redis_url.get_secret_value()))
    except (RedisError, OSError, ValueError) as failure:
        yield Finding("fail", "redis", str(failure), "start it, correct SELFTPT_REDIS_URL, or unset it")
    else:
        yield Finding("ok", "redis", fact)


async def ping(url: str) -> str:
    client = Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        start = perf_counter()
        await client.get("selftpt-doctor")
        return f"answers in {1000 * (perf_counter() - start):.1f} ms"
    finally:
        await client.aclose()


def check_port(settings: Settings) -> Iterator[Finding]:
    place = f"{settings.host} port {settings.port}"
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as failure:
        yield Finding(
            "warn", "port", f"{place}: {failure.strerror}", "a service runs already, or choose another --port"
        )
    else:
        yield Finding("ok", "port", f"{place} is free")


CHECKS: tuple[Check, ...] = (
    check_python,
    check_packages,
    check_torch,
    check_device,
    check_backbone,
    check_data_dir,
    check_redis,
    check_port,
)
