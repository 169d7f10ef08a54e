"""`selftpt bench`: how fast a running service answers, seen from this machine."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Sequence
from typing import Any

import click
from PIL import Image
from rich.table import Table

from service.client import Client
from service.client.calls import authorization
from service.commands.display import notes, progress, results, write_json
from service.commands.label_sets import api_key_option, json_option, server_option
from service.commands.labels import read_labels
from service.commands.load import Job, Tally, quantile, run_load
from service.commands.walking import walk
from service.images.formats import sniffed_type

LABELS = "cat, dog, cup of coffee, rocket, astronaut, bicycle, mountain, pizza, piano, umbrella"
MADE_UP = 8
SIZE = (640, 480)
QUANTILES = (0.5, 0.9, 0.95, 0.99)
BUSY = 0.8
"""Share of one core from which the generator itself may be what is measured."""
MOST_IMAGES = 256


@click.command()
@click.argument("images", nargs=-1)
@click.option("--labels", "text", default=LABELS, show_default=True, help="Class names, divided by commas.")
@click.option("--label-set", help="Id or name of a label set instead.")
@click.option("--adapter", help="Another method than the label set's own.")
@click.option("--concurrency", "-c", type=click.IntRange(1, 1000), default=8, show_default=True, help="Connections.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second, whatever the answers do.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True)
@click.option("--warm-up", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Seconds not counted.")
@server_option
@api_key_option
@json_option
def bench(
    *,
    images: tuple[str, ...],
    text: str,
    label_set: str | None,
    adapter: str | None,
    concurrency: int,
    rate: float | None,
    seconds: float,
    warm_up: float,
    server: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Send IMAGES (files, folders, globs; made-up photos if none) one by one and report rate and latency.

    Without --rate each of --concurrency connections waits for its answer; with it, requests come at random moments and
    latency counts from when they were due.
    """
    params: dict[str, str | list[str]] = {"label_set": label_set} if label_set else {"labels": read_labels(text, None)}
    if adapter:
        params["adapter"] = adapter
    bodies = photos(images)
    job = Job(f"{server.rstrip('/')}/v1/classify", params, authorization(api_key), bodies, concurrency, seconds, rate,
              warm_up)  # fmt: skip
    with Client(server, api_key=api_key) as client, progress() as bars:
        bars.add_task("waiting for adapted prompts", total=None)
        chosen = {"label_set": label_set} if label_set else {"labels": read_labels(text, None)}
        client.classify(bodies[0][1], adapter=adapter, wait=60.0, **chosen)
    tally = Tally()
    try:
        watched(job, tally)
    finally:  # a run that is broken off shows what it found
        if tally.latencies or tally.failures:
            show(job, tally, as_json)
    if not tally.latencies:
        raise click.ClickException("no request was answered")


def watched(job: Job, tally: Tally) -> None:
    with progress() as bars:
        task = bars.add_task("measuring", total=job.warm_up + job.seconds)
        asyncio.run(run_load(job, tally, tick=lambda: bars.update(task, completed=bars.tasks[0].elapsed or 0.0)))


def photos(patterns: Sequence[str]) -> list[tuple[str, bytes]]:
    """Media type and bytes of what goes as a raw body."""
    if not patterns:
        return [("image/jpeg", made_up(seed)) for seed in range(MADE_UP)]
    found: list[tuple[str, bytes]] = []
    for one in walk(patterns):
        content = one.path.read_bytes()
        kind = sniffed_type(content)
        if kind is not None:
            found.append((kind, content))
        if len(found) == MOST_IMAGES:
            break
    if not found:
        raise click.UsageError("no JPEG, PNG, WebP or GIF image found")
    return found


def made_up(seed: int) -> bytes:
    """A JPEG of soft random colours, which costs about as much to decode as a photo of its size."""
    noise = random.Random(seed).randbytes(3 * 32 * 24)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (32, 24), noise).resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def report(job: Job, tally: Tally) -> dict[str, Any]:
    """Milliseconds, and shares of the time of one core."""
    latency = {f"p{share * 100:g}": round(1000 * tally.quantile(share), 2) for share in QUANTILES}
    return {
        "requests": len(tally.latencies),
        "seconds": round(tally.seconds, 2),
        "rate": round(tally.rate, 1),
        "asked_rate": job.rate,
        "concurrency": None if job.rate else job.concurrency,
        "latency_ms": {**latency, "max": round(1000 * tally.quantile(1.0), 2)} if tally.latencies else {},
        "stages_ms": {stage: round(quantile(values, 0.5), 2) for stage, values in tally.stages.items()},
        "failures": dict(tally.failures),
        "generator_share": round(tally.processor_seconds / (tally.seconds + job.warm_up), 2),
    }


def show(job: Job, tally: Tally, as_json: bool) -> None:
    found = report(job, tally)
    if as_json:
        write_json(found)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    how = f"{job.rate:g} a second asked for" if job.rate else f"{job.concurrency} connections"
    table.add_row("[bold]answered[/bold]", f"{found['requests']} in {found['seconds']} s, {how}")
    table.add_row("[bold]rate[/bold]", f"{found['rate']} images/s")
    table.add_row("[bold]latency[/bold]", listed(found["latency_ms"]))
    table.add_row("[bold]in the service[/bold]", f"{listed(found['stages_ms'])} (medians)")
    if found["failures"]:
        said = ", ".join(f"{count} x {kind}" for kind, count in found["failures"].items())
        table.add_row("[bold red]not answered[/bold red]", said)
    results().print(table)
    if found["generator_share"] > BUSY:
        notes().print("[yellow]this command itself was busy: the service may be faster than it could ask[/yellow]")


def listed(milliseconds: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:g} ms" for name, value in milliseconds.items())
