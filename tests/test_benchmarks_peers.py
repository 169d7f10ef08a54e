"""The comparison with other servers: what is sent, what is counted, what is skipped, and what is known already."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from starlette.requests import Request

from benchmarks.peers.comparison import noop_image, parse, planned, wanted
from benchmarks.peers.model import Constant, Shape
from benchmarks.peers.records import Journal, Record
from benchmarks.peers.report import ratio, rows_of
from benchmarks.peers.running import every_process, running, tree
from benchmarks.peers.servers import OWN, SERVERS
from benchmarks.peers.versions import Interpreter

ONE = Record(
    server=OWN, noop=True, workers=1, round=1, conditions="here", concurrency=16, rate=300.0, p50=1.0, p95=2.0, p99=3.0,
    cpu_ms=1.0, memory=10.0, processes=1, start_seconds=1.0,
)  # fmt: skip


def test_an_image_without_a_model_is_small_to_decode_and_as_long_as_a_photo() -> None:
    data = noop_image()
    assert len(data) == 19_000
    assert Image.open(io.BytesIO(data)).size == (8, 8)
    assert len(Constant().answers([data, data])) == 2


async def test_multipart_bodies_hold_the_image_whole() -> None:
    server = next(server for server in SERVERS if server.multipart)
    headers = [(b"content-type", server.content_type.encode())]
    body = server.body(b"\xff\xd8image\r\n")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async with Request({"type": "http", "method": "POST", "headers": headers}, receive).form() as form:
        (upload,) = form.getlist("images")
        assert not isinstance(upload, str)
        assert await upload.read() == b"\xff\xd8image\r\n"


def test_a_comparison_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "peers.jsonl"
    Journal(file, "here").add([ONE, replace(ONE, concurrency=64)])
    again = Journal(file, "here")
    assert (OWN, True, 1, 1) in again
    assert (OWN, True, 1, 2) not in again
    assert (OWN, True, 1, 1) not in Journal(file, "another version")


def test_rows_are_medians_and_ratios_are_against_the_best_of_this_service() -> None:
    rounds = [replace(ONE, round=number, rate=rate) for number, rate in enumerate((100.0, 900.0, 300.0))]
    peer = replace(ONE, server="Mosec", rate=150.0)
    rows = rows_of([*rounds, replace(ONE, workers=2, rate=600.0), peer])
    assert [(row.server, row.workers, row.rate) for row in rows] == [
        (OWN, 1, 300.0),
        (OWN, 2, 600.0),
        ("Mosec", 1, 150.0),
    ]
    assert ratio(rows, rows[2]) == "4.00"


def test_peers_that_are_not_installed_are_named_and_skipped(tmp_path: Path) -> None:
    arguments = parse(["--python", sys.executable, "--out", str(tmp_path), "--rounds", "2", "--workers", "1"])
    plan, skipped = planned(arguments)
    missing = [
        server for server in SERVERS if server.package not in Interpreter(sys.executable).versions([server.package])
    ]
    assert all(server.package in skipped[server.name] for server in missing if server.name != OWN)
    assert OWN not in skipped
    assert plan.versions["torch"]
    assert len(list(wanted(arguments))) == 2 * 2 * len(SERVERS)


def test_what_a_server_spends_and_leaves_behind_is_seen_to_the_last_process(tmp_path: Path) -> None:
    shell = ["/bin/sh", "-c", "(while :; do :; done) & exec sleep 60"]
    if not os.path.isdir("/proc/self"):
        pytest.skip("processes are counted through /proc")
    with running(shell, {"PATH": os.environ["PATH"]}, 1, tmp_path / "log") as server:
        while server.cpu_seconds() < 0.05:
            pass
        assert len(server.processes()) == 2
        assert server.memory_mib() > 0
        busy = {process.pid for process in server.processes()}
    assert not busy & set(every_process())


def test_a_tree_holds_all_descendants_and_nothing_else() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = {process.pid for process in tree(os.getpid(), every_process())}
        assert {os.getpid(), child.pid} <= found
        assert os.getppid() not in found
    finally:
        child.communicate(b"\n")


def test_a_shape_survives_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(8123, 2, noop=True)
    for name, value in shape.environment.items():
        monkeypatch.setenv(name, value)
    assert Shape.from_environment() == shape
