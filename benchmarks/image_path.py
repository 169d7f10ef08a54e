"""What the way of an image through the service costs, one at a time: overhead over preprocessing and forward pass, and
an image that was seen before. What many at once cost is in `saturation`."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import socket
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.classify import IMAGES, adapted_path, raw_loop
from benchmarks.load import Job, Outcome, generate
from benchmarks.names import class_names
from benchmarks.process import ServiceProcess, running_service
from benchmarks.raw_http import prepared
from benchmarks.report import progress, write, write_header, write_table
from service.settings import Settings

STAGES = ("receive", "resolve", "decode", "queue", "batch", "forward", "head", "total")
CLASSES = 100
SETTLE = 1.0

Times = dict[str, list[float]]
"""Milliseconds by what took them."""


class Caller:
    """One connection; asks for one image at a time. Whole requests are sent in one piece and of the answer's head only
    status and length are read, so that little of the time is the caller's own."""

    def __init__(self, service: ServiceProcess) -> None:
        self._line = socket.create_connection(("127.0.0.1", service.port))
        self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path: str, image: bytes, times: Times, name: str) -> None:
        request = request_head(path, len(image)) + image
        begun = time.perf_counter()
        self._line.sendall(request)
        status, body = self._answer()
        times[name].append(1e3 * (time.perf_counter() - begun))
        if status != "200":
            raise SystemExit(body.decode())
        timings: dict[str, Any] = json.loads(body)["timings_ms"]
        for stage in STAGES:
            times[f"{name}: {stage}"].append(float(timings.get(stage, 0.0)))

    def _answer(self) -> tuple[str, bytes]:
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._part()
        head, _, body = got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._part()
        return head.split(b" ", 2)[1].decode(), body

    def _part(self) -> bytes:
        part = self._line.recv(1 << 16)
        if not part:
            raise SystemExit("the service hung up")
        return part


def request_head(path: str, length: int) -> bytes:
    fields = f"Host: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n".encode()


def variants(source: Path, count: int) -> list[bytes]:
    """The photo with one pixel changed each time: new content, the same work."""
    image = Image.open(source).convert("RGB")
    made = []
    for number in range(count):
        image.putpixel((0, 0), (number % 256, number // 256 % 256, number // 65536))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        made.append(buffer.getvalue() + number.to_bytes(4, "big"))  # bytes behind the end mark are nobody's
    return made


def overhead(arguments: argparse.Namespace, settings: dict[str, str]) -> None:
    names = class_names(CLASSES)
    images = [IMAGES / "coffee.jpg"]
    times: Times = defaultdict(list)
    raw = raw_loop(names, images, Settings(**settings))  # type: ignore[arg-type]  # texts, as from the environment
    image = images[0].read_bytes()
    with running_service(**settings, embedding_bytes="0") as service:
        caller, path = Caller(service), adapted_path(service, names)
        for number in range(arguments.requests):
            kept = times if number >= arguments.requests // 10 else defaultdict(list)
            begun = time.perf_counter()
            raw.once([image])
            kept["preprocess and forward, in process"].append(1e3 * (time.perf_counter() - begun))
            caller.ask(path, image, kept, "service")
    median = {name: statistics.median(found) for name, found in times.items()}
    work = [
        sum(row) for row in zip(*(times[f"service: {stage}"] for stage in ("decode", "forward", "head")), strict=True)
    ]
    beside = statistics.median(whole - part for whole, part in zip(times["service"], work, strict=True))
    rows = [(name, f"{milliseconds:.2f}") for name, milliseconds in median.items()]
    rows.append(("service beside decode, forward and head of the same request", f"{beside:.2f}"))
    write_table(("concurrency 1", "p50, ms"), rows)


def seen_before(arguments: argparse.Namespace, settings: dict[str, str]) -> None:
    """The same image against another label set, and new images, in turns."""
    times: Times = defaultdict(list)
    fresh = variants(IMAGES / "coffee.jpg", arguments.requests)
    with running_service(**settings) as service:
        caller = Caller(service)
        paths = label_sets(service, 8)
        for number, image in enumerate(fresh):
            caller.ask(paths[number % 8], image, times, "new image")
            caller.ask(paths[(number + 1) % 8], image, times, "seen before, another label set")
        passes = service.metric("selftpt_cache_lookups_total", cache="embedding_memory", result="miss")
    rows = [
        (name, *(f"{statistics.median(times[key]):.2f}" for key in (name, f"{name}: decode", f"{name}: forward")))
        for name in ("new image", "seen before, another label set")
    ]
    write_table(("concurrency 1", "p50, ms", "decode", "forward"), rows)
    write(f"{2 * len(fresh)} requests, {passes:.0f} tower passes.\n")


def load(service: ServiceProcess, paths: Sequence[str], seconds: float) -> Outcome:
    """`seconds` count, after those in which the queue is filled."""
    job = Job(service.port, "", (str(IMAGES / "coffee.jpg"),), 16, SETTLE + seconds, settle=SETTLE)
    requests = [request for path in paths for request in prepared(service.port, path, job.images)]
    outcome = asyncio.run(generate(job, requests))
    if outcome.failures:
        raise SystemExit(f"{outcome.failures} requests failed")
    return outcome


def label_sets(service: ServiceProcess, count: int) -> list[str]:
    """Paths that classify against distinct label sets."""
    paths = []
    for salt in range(count):
        body = {"classes": class_names(CLASSES, salt=salt), "adapter": "zero-shot"}
        answer = service.client.post("/v1/label-sets", json=body, headers={"Prefer": "wait=60"})
        if not answer.is_success or answer.json()["status"] != "ready":
            raise SystemExit(f"a label set is not ready: {answer.text}")
        paths.append(f"/v1/classify?label_set={answer.json()['id']}")
    return paths


PARTS: dict[str, Callable[[argparse.Namespace, dict[str, str]], None]] = {
    "overhead": overhead,
    "seen": seen_before,
}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    arguments = parser.parse_args(argv)
    write_header("Image path", "image_path", argv)
    settings = {"engine": "torch", "threads": "1", "decode_threads": "1"}
    for part in arguments.parts:
        progress(part)
        PARTS[part](arguments, settings)


if __name__ == "__main__":
    main(sys.argv[1:])
