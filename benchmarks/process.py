"""The real service in a process of its own, for benchmarks and end-to-end tests: started on a free port, watched until
it is ready, and never left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_READY_SECONDS = 90.0
_STOP_SECONDS = 30.0
_LOG_TAIL = 4000

# Asks the kernel to be killed with its parent (PR_SET_PDEATHSIG), which survives the exec that follows.
_TIED_EXEC = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def tied_command(*command: str) -> list[str]:
    """`command`, wrapped so that it is killed when this process ends, however that happens (on Linux)."""
    return [sys.executable, "-I", "-c", _TIED_EXEC, str(os.getpid()), *command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class ServiceProcess:
    """`python -m service serve` on a data directory. A context manager that kills what is left at its end.

    SELFTPT_BACKBONE, SELFTPT_DEVICE, SELFTPT_ENGINE and SELFTPT_THREADS are passed on; other settings come from
    `settings` alone.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None, *, port: int = 0) -> None:
        self.port = port or free_port()
        self.log = data_dir / f"service-{self.port}.log"
        passed = ("SELFTPT_BACKBONE", "SELFTPT_DEVICE", "SELFTPT_ENGINE", "SELFTPT_THREADS")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SELFTPT_") or key in passed}
        chosen = {f"SELFTPT_{name.upper()}": value for name, value in (settings or {}).items()}
        self._environ = {**kept, "SELFTPT_DATA_DIR": str(data_dir), **chosen}
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(
            base_url=self.url, timeout=120.0, limits=httpx.Limits(max_connections=256), trust_env=False
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns without waiting, so that several can start at once."""
        command = tied_command(
            sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", str(self.port)
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environ)

    def wait_ready(self) -> float:
        """Seconds until /readyz said so."""
        start = time.monotonic()
        while not self._ready():
            assert self._process is not None
            waited = time.monotonic() - start
            if self._process.poll() is not None or waited > _READY_SECONDS:
                raise RuntimeError(f"the service did not become ready:\n{self.log_text()[-_LOG_TAIL:]}")
            time.sleep(0.05)
        return time.monotonic() - start

    def kill(self) -> None:
        """SIGKILL, as a power cut would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code."""
        assert self._process is not None
        return self._process.wait(_STOP_SECONDS)

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def samples(self, name: str) -> list[Sample]:
        """All series of that sample name."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return [sample for family in families for sample in family.samples if sample.name == name]

    def metric(self, name: str, **labels: str) -> float:
        """Sum over all series of that sample name that carry these labels; 0 when there is none."""
        return sum(sample.value for sample in self.samples(name) if labels.items() <= sample.labels.items())

    def __enter__(self) -> ServiceProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.kill()
        if error is not None:
            sys.stderr.write(f"--- end of the log of {self.url}\n{self.log_text()[-_LOG_TAIL:]}\n")

    def _ready(self) -> bool:
        try:
            return self.client.get("/readyz", timeout=5.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextmanager
def running_service(**settings: str) -> Iterator[ServiceProcess]:
    """Ready to serve, on an empty data directory that is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="selftpt-"))
    try:
        with ServiceProcess(folder, settings) as service:
            service.wait_ready()
            yield service
    finally:
        shutil.rmtree(folder, ignore_errors=True)
