"""kill -9 of the service that adapts a label set, of two on one Redis: how long until the other has it ready."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.names import class_names
from benchmarks.process import ServiceProcess
from benchmarks.report import progress, write, write_header, write_table
from tests.valkey import real_redis

PHOTO = (Path(__file__).parents[1] / "examples" / "images" / "coffee.jpg").read_bytes()


@dataclass(frozen=True, slots=True)
class Takeover:
    """Seconds from the kill to the first adapted answer of the other; of its own adaptation in that."""

    answered: float
    adapting: float


def takeover(redis_url: str, classes: int, salt: int) -> Takeover:
    with tempfile.TemporaryDirectory(prefix="selftpt-") as folder, ExitStack() as stack:
        one, other = (stack.enter_context(ServiceProcess(made(folder, name), {"redis_url": redis_url, "threads": "1"}))
                      for name in ("one", "other"))  # fmt: skip
        one.wait_ready()
        other.wait_ready()
        body = {"classes": class_names(classes, salt=salt)}
        label_set = one.client.post("/v1/label-sets", json=body).json()["id"]
        while not 0 < shown(other, label_set)["progress"] < 1:
            time.sleep(0.01)
        one.kill()
        killed = time.monotonic()
        answer = other.client.post(
            f"/v1/classify?label_set={label_set}",
            content=PHOTO,
            headers={"Content-Type": "image/jpeg", "Prefer": "wait=60"},
            timeout=90.0,
        ).json()
        seconds = time.monotonic() - killed
        if not answer["adapted"]:
            raise SystemExit(f"not adapted after {seconds:.1f} s: {answer['status']}")
        return Takeover(seconds, shown(other, label_set)["seconds"])


def made(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path


def shown(service: ServiceProcess, label_set: str) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/v1/label-sets/{label_set}").json()
    return found


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    write_header("Taking over from a killed service", "takeover", argv)
    found = []
    with real_redis() as redis:
        for number in range(arguments.rounds):
            found.append(takeover(redis.url, arguments.classes, salt=number + 1))
            progress(f"round {number + 1}: {found[-1]}")
    rows = [
        (told, *(f"{value(seconds):.1f} s" for value in (min, statistics.median, max)))
        for told, seconds in (
            ("from the kill to an adapted answer of the other", [one.answered for one in found]),
            ("of that, its own adaptation", [one.adapting for one in found]),
        )
    ]
    write_table(("", "least", "median", "most"), rows)
    write(f"{arguments.classes} classes, leases of 5 s (the default), {arguments.rounds} rounds.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
