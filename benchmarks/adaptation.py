"""Label set uploaded to ready, over HTTP: seconds and the service's peak memory, by number of classes."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.names import class_names
from benchmarks.process import ServiceProcess, running_service
from benchmarks.report import progress, write, write_header, write_table

MIB = 1024 * 1024


def memory(pid: int, field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (peak); 0 where there is no /proc."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def forget_peak(pid: int) -> None:
    """Sets VmHWM back to what is used now, so that each row has its own peak."""
    clear = Path(f"/proc/{pid}/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="ascii")


def adapt_once(service: ServiceProcess, names: Sequence[str], adapter: str | None) -> tuple[float, dict[str, Any]]:
    """Seconds from sending the upload to seeing `ready`, and the label set."""
    start = time.perf_counter()
    body = {"classes": list(names), **({"adapter": adapter} if adapter else {})}
    answer = service.client.post("/v1/label-sets", json=body, headers={"Prefer": "wait=60"})
    while answer.is_success and answer.json()["status"] not in {"ready", "failed"}:
        time.sleep(0.1)
        answer = service.client.get(f"/v1/label-sets/{answer.json()['id']}")
    seconds = time.perf_counter() - start
    if not answer.is_success or answer.json()["status"] != "ready":
        raise SystemExit(f"the label set was not adapted: {answer.text}")
    return seconds, answer.json()


def measure(
    service: ServiceProcess, count: int, salt: int, arguments: argparse.Namespace
) -> tuple[float, float, float]:
    """Seconds to ready, peak bytes, and how much of that was not there before."""
    before = memory(service.pid, "VmRSS")
    forget_peak(service.pid)
    seconds, _ = adapt_once(service, class_names(count, salt=salt, file=arguments.names), arguments.adapter)
    peak = memory(service.pid, "VmHWM")
    return seconds, peak, peak - before


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--adapter", help="default: what the service takes where none is named")
    parser.add_argument("--names", type=Path, help="class names, one a line; default: made-up ones")
    arguments = parser.parse_args(argv)
    write_header("Adaptation", "adaptation", argv)
    figures: dict[int, list[tuple[float, float, float]]] = {count: [] for count in arguments.classes}
    with running_service() as service:
        _, label_set = adapt_once(service, class_names(5), arguments.adapter)
        for number in range(1, arguments.rounds + 1):
            for count in arguments.classes:
                figures[count].append(measure(service, count, number, arguments))
                progress(f"round {number}: {count} classes in {figures[count][-1][0]:.2f} s")
    rows = []
    for count, measured in figures.items():
        seconds, peak, extra = (statistics.median(column) for column in zip(*measured, strict=True))
        rows.append((count, f"{seconds:.2f}", f"{peak / MIB:.0f}", f"{extra / MIB:.0f}"))
    write_table(("classes", "upload to ready, s", "peak memory, MiB", "of that new, MiB"), rows)
    write(f"Adapter `{label_set['adapter']}`, {label_set['info']}; medians of {arguments.rounds} interleaved rounds.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
