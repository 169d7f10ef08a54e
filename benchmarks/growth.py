"""Whether a process grows: its memory, files, threads and tasks, looked at again and again while it works."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.meanwhile import meanwhile
from benchmarks.process import ServiceProcess


@dataclass(frozen=True, slots=True)
class Size:
    """Of the process: resident MiB, file descriptors, threads; tasks on its event loop. `when` in seconds."""

    when: float
    mib: float
    files: int
    threads: int
    tasks: int


def size_of(service: ServiceProcess) -> Size:
    """Of Linux only."""
    folder = Path(f"/proc/{service.pid}")
    lines = (folder / "status").read_text(encoding="utf-8").splitlines()
    told = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    files = len(list((folder / "fd").iterdir()))
    tasks = int(service.metric("selftpt_event_loop_tasks"))
    return Size(time.monotonic(), int(told["VmRSS"][0]) / 1024, files, int(told["Threads"][0]), tasks)


def slope(sizes: Sequence[Size]) -> float:
    """Least squares of the memory: MiB an hour; 0 for fewer than three looks."""
    if len(sizes) < 3:
        return 0.0
    return 3600 * statistics.linear_regression([one.when for one in sizes], [one.mib for one in sizes]).slope


@dataclass(frozen=True, slots=True)
class Growth:
    """`sizes` are those while it worked, `before` and `after` those of the warm process at rest."""

    before: Size
    after: Size
    sizes: tuple[Size, ...]

    @property
    def percent(self) -> float:
        """Of the resident memory, from the warm process to the end."""
        return 100 * (self.after.mib / self.before.mib - 1)

    @property
    def mib_per_hour(self) -> float:
        """Of the second half: in the first, caches and allocators fill."""
        return slope(self.sizes[len(self.sizes) // 2 :])

    def row(self) -> tuple[str, ...]:
        """Under `COLUMNS`."""
        before, after = self.before, self.after
        return (
            f"{before.mib:.0f} -> {after.mib:.0f} MiB ({self.percent:+.1f} %)",
            f"{self.mib_per_hour:+.0f} MiB/h",
            f"{before.files} -> {after.files}",
            f"{before.threads} -> {after.threads}",
            f"{before.tasks} -> {after.tasks}",
        )


COLUMNS = ("memory", "slope of the second half", "files", "threads", "tasks")


@contextmanager
def looked_at(service: ServiceProcess, every: float) -> Iterator[list[Size]]:
    """The list gets a look every so many seconds until the block ends."""
    sizes: list[Size] = []

    def look(over: threading.Event) -> None:
        while not over.wait(every):
            sizes.append(size_of(service))

    with meanwhile(look):
        yield sizes


def at_rest(service: ServiceProcess, *, seconds: float = 60.0) -> Size:
    """Once it works on nothing any more, or after so many seconds."""
    end = time.monotonic() + seconds
    while _busy(service) and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(0.5)
    return size_of(service)


def _busy(service: ServiceProcess) -> bool:
    """That somebody asks is a request itself."""
    return service.metric("selftpt_in_flight_requests") > 1 or service.metric("selftpt_adaptations_running") > 0
