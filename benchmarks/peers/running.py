"""A server with all its processes: started, watched until it answers rightly, counted, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from benchmarks.process import tied_command

READY_SECONDS = 180.0
STOP_SECONDS = 15.0
TICKS = os.sysconf("SC_CLK_TCK")
ATTEMPTS = 100
LOG_TAIL = 3000
MIB = 1024.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one time. `started` tells it from a later one of the same number."""

    pid: int
    parent: int
    started: str
    seconds: float


def every_process() -> dict[int, Process]:
    """But those that have ended and only wait to be asked how."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError):  # ended meanwhile
            fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            pid, spent = int(entry.name), (int(fields[11]) + int(fields[12])) / TICKS
            if fields[0] != "Z":
                found[pid] = Process(pid, int(fields[1]), fields[19], spent)
    return found


def tree(root: int, processes: Mapping[int, Process]) -> list[Process]:
    """`root` and all that descends from it."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    open_pids, found = [root], []
    while open_pids:
        pid = open_pids.pop()
        if pid in processes:
            found.append(processes[pid])
        open_pids += children.get(pid, [])
    return found


class RunningServer:
    def __init__(self, root: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._root, self.port, self._log = root, port, log
        self._seen: dict[tuple[int, str], Process] = {}

    def processes(self) -> list[Process]:
        now = tree(self._root.pid, every_process())
        self._seen.update({(one.pid, one.started): one for one in now})
        return now

    def cpu_seconds(self) -> float:
        """Of every process that was seen, those that have ended among them as last seen."""
        self.processes()
        return sum(one.seconds for one in self._seen.values())

    def memory_mib(self) -> float:
        """Proportional shares, so that pages which processes share count once."""
        return sum(share(one.pid) for one in self.processes())

    def ask(self, path: str, body: bytes, content_type: str) -> Any:
        """The answer, or None while there is none with status 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()
        return json.loads(content) if answer.status == 200 else None

    def wait(self, path: str, body: bytes, content_type: str) -> Any:
        """The first right answer. Raises `RuntimeError` with the end of the log if there is none."""
        begun = time.monotonic()
        while (answer := self.ask(path, body, content_type)) is None:
            if self._root.poll() is not None or time.monotonic() - begun > READY_SECONDS:
                raise RuntimeError(f"no answer:\n{self._log.read_text(encoding='utf-8', errors='replace')[-LOG_TAIL:]}")
            time.sleep(0.1)
        return answer

    def stop(self) -> None:
        self.processes()
        self._root.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._root.wait(STOP_SECONDS)
        for _ in range(ATTEMPTS):
            for pid in (left := self._left()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._root.poll()
            if not left:
                return
            time.sleep(0.1)

    def _left(self) -> list[int]:
        """Of the processes that were seen, those that still run."""
        running = every_process()
        return [pid for pid, started in self._seen if pid in running and running[pid].started == started]


def share(pid: int) -> float:
    """MiB; 0 of a process that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / MIB
    return 0.0


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], port: int, log: Path) -> Iterator[RunningServer]:
    with log.open("wb") as output:
        root = subprocess.Popen(tied_command(*command), stdout=output, stderr=output, env=dict(environment))
    server = RunningServer(root, port, log)
    try:
        yield server
    finally:
        server.stop()
