"""The comparison's rounds: every server gets the same load, in turn; what was measured is kept, so that a comparison
that was stopped goes on where it was."""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from benchmarks.classify import IMAGES
from benchmarks.load import Job, LoadProcess
from benchmarks.names import class_names
from benchmarks.peers.model import CLASSES, Shape
from benchmarks.peers.records import Journal, Key, Record
from benchmarks.peers.report import write_report
from benchmarks.peers.running import RunningServer, running
from benchmarks.peers.servers import OWN, SERVERS, Server
from benchmarks.peers.versions import ROOT, Interpreter, peers_python
from benchmarks.process import free_port
from benchmarks.report import progress, write, write_header

NOOP_BYTES = 19_000
"""What a photo of 500 x 375 pixels weighs."""

SHARED = ("torch", "openvino", "numpy", "fastapi", "uvicorn")
WARM_SECONDS = 1.5


def noop_image() -> bytes:
    """A picture of a few pixels, as long as a photo: bytes behind the end mark are nobody's."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (120, 90, 60)).save(buffer, "JPEG")
    return buffer.getvalue().ljust(NOOP_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured. `conditions` tells records of other plans apart."""

    engine: str
    concurrency: tuple[int, ...]
    seconds: float
    folder: Path
    pythons: dict[str, str]
    versions: dict[str, str]
    first_labels: dict[str, list[str]] = field(default_factory=dict)
    """Of the first server that was asked; all others must give the same."""

    @property
    def conditions(self) -> str:
        facts = ", ".join(f"{name} {version}" for name, version in sorted(self.versions.items()))
        return f"{self.engine}, {self.seconds:g} s, {facts}"


def one_server(server: Server, key: Key, plan: Plan, load: LoadProcess) -> list[Record]:
    """Starts the server, warms it up, and loads it with each concurrency."""
    _, noop, workers, _ = key
    shape = Shape(free_port(), workers, noop=noop)
    image = noop_image() if noop else (IMAGES / "coffee.jpg").read_bytes()
    with tempfile.NamedTemporaryFile(suffix=".body") as file:
        file.write(body := server.body(image))
        file.flush()
        command = [plan.pythons[server.name], *server.command(shape)]
        log = plan.folder / log_name(server)
        with running(command, environment(server, shape, plan), shape.port, log) as process:
            begun = time.monotonic()
            path = own_path(shape.port) if server.name == OWN else server.path
            answer = process.wait(path, body, server.content_type)
            started = time.monotonic() - begun
            if not noop:
                check(server, answer, plan)
            job = Job(shape.port, path, (file.name,), max(plan.concurrency), WARM_SECONDS, server.content_type)
            load.run(job)
            jobs = [replace(job, concurrency=number, seconds=plan.seconds) for number in plan.concurrency]
            return [measured(process, load, one, key, conditions=plan.conditions, started=started) for one in jobs]


def log_name(server: Server) -> str:
    return f"{server.name.lower().replace(', ', '_').replace(' ', '_')}.log"


def environment(server: Server, shape: Shape, plan: Plan) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SELFTPT_", "PEER_"))}
    own = {
        "SELFTPT_DATA_DIR": str(plan.folder / "data"),
        "SELFTPT_ENGINE": plan.engine,
        "SELFTPT_EMBEDDING_BYTES": "0",
        "SELFTPT_THREADS": str(shape.workers),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(ROOT),
    }
    return {**kept, **own, **shape.environment, **server.environment}


def own_path(port: int) -> str:
    """Of a label set that is ready, once the service is."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        while not is_ready(client):
            time.sleep(0.1)
        body = {"classes": class_names(CLASSES), "adapter": "zero-shot"}
        answer = client.post("/v1/label-sets", json=body, headers={"Prefer": "wait=60"})
        answer.raise_for_status()
        return f"/v1/classify?label_set={answer.json()['id']}"


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def check(server: Server, answer: Any, plan: Plan) -> None:
    """All servers must see the same in the image. Raises `SystemExit`."""
    labels = [one["label"] for one in server.first(answer)["predictions"]]
    expected = plan.first_labels.setdefault("labels", labels)
    if labels != expected:
        raise SystemExit(f"{server.name} answers {labels}, others {expected}")


def measured(
    process: RunningServer, load: LoadProcess, job: Job, key: Key, *, conditions: str, started: float
) -> Record:
    """Raises `RuntimeError` when nothing was answered."""
    before = process.cpu_seconds()
    outcome = load.run(job)
    spent = process.cpu_seconds() - before
    if not outcome.latencies:
        raise RuntimeError(f"none of {outcome.failures} requests was answered")
    server, noop, workers, number = key
    return Record(
        server=server,
        noop=noop,
        workers=workers,
        round=number,
        conditions=conditions,
        concurrency=job.concurrency,
        rate=outcome.rate,
        p50=1e3 * outcome.quantile(0.5),
        p95=1e3 * outcome.quantile(0.95),
        p99=1e3 * outcome.quantile(0.99),
        cpu_ms=1e3 * spent / len(outcome.latencies),
        memory=process.memory_mib(),
        processes=len(process.processes()),
        start_seconds=started,
        failures=outcome.failures,
    )


def wanted(arguments: argparse.Namespace) -> Iterator[tuple[Server, Key]]:
    """Every server once before any of them again."""
    chosen = [server for server in SERVERS if not arguments.servers or server.name in arguments.servers]
    for number in range(1, arguments.rounds + 1):
        for noop in [variant == "noop" for variant in arguments.variants]:
            for server, workers in product(chosen, arguments.workers):
                yield server, (server.name, noop, workers, number)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="that compute, with one thread each")
    parser.add_argument("--variants", nargs="+", choices=("tower", "noop"), default=["tower", "noop"])
    parser.add_argument("--servers", nargs="+", choices=[one.name for one in SERVERS], help="default: all")
    parser.add_argument(
        "--engine", help="that runs the tower everywhere; default: openvino where installed, else torch"
    )
    parser.add_argument("--python", default=peers_python(), help="that has the peers; `make peers` makes one")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    return parser.parse_args(argv)


def planned(arguments: argparse.Namespace) -> tuple[Plan, dict[str, str]]:
    """The plan, and why some servers are left out."""
    packages = [server.package for server in SERVERS]
    there = Interpreter(arguments.python).versions([*packages, *SHARED])
    here = Interpreter(sys.executable).versions(SHARED)
    engine = arguments.engine or ("openvino" if "openvino" in there and "openvino" in here else "torch")
    pythons = {server.name: sys.executable if server.name == OWN else arguments.python for server in SERVERS}
    skipped = {
        server.name: f"{server.package} is not installed for {arguments.python}, `make peers` installs it"
        for server in SERVERS
        if server.name != OWN and server.package not in there
    }
    differing = [name for name in ("torch", "openvino", "numpy") if here.get(name) != there.get(name)]
    for name in differing:
        write(f"Mind: {name} is {here.get(name)} for {OWN} and {there.get(name)} for the others.\n")
    arguments.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(engine, tuple(arguments.concurrency), arguments.seconds, arguments.out.resolve(), pythons, there)
    return plan, skipped


def run(arguments: argparse.Namespace, plan: Plan, journal: Journal, skipped: dict[str, str]) -> None:
    """What is not known yet. Servers that do not run are added to `skipped`."""
    with LoadProcess() as load:
        for server, key in wanted(arguments):
            if key in journal or server.name in skipped:
                continue
            progress(f"round {key[3]}: {server.name}, {'no model' if key[1] else 'tower'}, {key[2]} workers")
            try:
                journal.add(one_server(server, key, plan, load))
            except RuntimeError as failure:
                skipped[server.name] = f"did not run, see {plan.folder.name}/{log_name(server)}"
                progress(str(failure))


def main(argv: Sequence[str]) -> None:
    arguments = parse(argv)
    write_header("Beside other servers", "peers", argv)
    plan, skipped = planned(arguments)
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    write(f"Engine {plan.engine}; {versions}.\n")
    journal = Journal(plan.folder / "peers.jsonl", plan.conditions)
    run(arguments, plan, journal, skipped)
    write_report(journal.records, skipped, plan.folder)
