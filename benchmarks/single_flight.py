"""Many first requests of one new label set at the same time: how many adaptations they cost."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx

from benchmarks.names import class_names
from benchmarks.process import ServiceProcess, running_service
from benchmarks.report import write, write_header, write_table

IMAGE = Path(__file__).parents[1] / "examples" / "images" / "coffee.jpg"
COUNTED = ("selftpt_adaptations_total", "selftpt_text_forwards_total", "selftpt_coalesced_waiters_total")


def rush(service: ServiceProcess, names: Sequence[str], callers: int) -> list[httpx.Response]:
    """All callers send their first request for these class names at once, each on its own connection."""
    together = Barrier(callers, timeout=60)
    image = IMAGE.read_bytes()

    def call(_: int) -> httpx.Response:
        with httpx.Client(base_url=service.url, timeout=120.0, trust_env=False) as client:
            client.get("/livez")
            together.wait()
            headers = {"Content-Type": "image/jpeg", "Prefer": "wait=60"}
            return client.post("/v1/classify", params={"labels": list(names)}, content=image, headers=headers)

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(call, range(callers)))


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    write_header("Single flight", "single_flight", argv)
    rows = []
    with running_service() as service:
        for number in range(1, arguments.rounds + 1):
            before = [service.metric(name) for name in COUNTED]
            start = time.perf_counter()
            answers = rush(service, class_names(arguments.classes, salt=number), arguments.callers)
            seconds = time.perf_counter() - start
            after = [service.metric(name) for name in COUNTED]
            statuses = Counter(answer.status_code for answer in answers)
            adapted = sum(answer.is_success and answer.json()["adapted"] for answer in answers)
            delta = [f"{new - old:.0f}" for old, new in zip(before, after, strict=True)]
            rows.append((number, *delta, dict(statuses), adapted, f"{seconds:.2f}"))
    columns = ("round", "adaptations", "prompts encoded", "joined", "statuses", "adapted answers", "seconds")
    write_table(columns, rows)
    write(f"{arguments.callers} callers, a new label set of {arguments.classes} classes in each round.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
