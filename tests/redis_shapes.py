"""Redis as it is run in earnest: with TLS, behind Sentinels, as a cluster. Real processes of the system's redis-server,
for the wheel's server has no TLS; they die with the tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from benchmarks.process import free_port, tied_command
from tests.needs import missing

_PATIENCE = 15.0


def system_server(name: str = "redis-server") -> str:
    found = shutil.which(name)
    if found is None:
        raise missing(f"no {name}: on Debian, apt-get install redis-server redis-sentinel")
    return found


@dataclass(frozen=True)
class Certificates:
    """A self-made authority, and a certificate for 127.0.0.1 and localhost that it signed."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    if shutil.which("openssl") is None:
        raise missing("openssl is not installed")
    files = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    (folder / "names.cnf").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    newkey = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for command in (
        f"req -x509 {newkey} -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
        f"req {newkey} -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names.cnf -out server.crt",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return files


@contextmanager
def server_process(binary: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(exist_ok=True)
    command = tied_command(binary, *options, "--dir", str(folder), "--save", "")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_port(port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.02)
        else:
            return


@contextmanager
def tls_server(folder: Path, files: Certificates, *options: str) -> Iterator[int]:
    """The port. Clients must show a certificate of the same authority."""
    port = free_port()
    tls = {"tls-cert-file": files.certificate, "tls-key-file": files.key, "tls-ca-cert-file": files.authority}
    arguments = [word for name, path in tls.items() for word in (f"--{name}", str(path))]
    with server_process(system_server(), folder, "--port", "0", "--tls-port", str(port), *arguments, *options):
        wait_for_port(port)
        yield port


@dataclass
class Guarded:
    """A master, its replica, and the Sentinel that watches them."""

    sentinel: int
    master: subprocess.Popen[bytes]
    replica: int


@contextmanager
def guarded_by_sentinel(folder: Path) -> Iterator[Guarded]:
    master, replica, sentinel = (free_port() for _ in range(3))
    local = ("--bind", "127.0.0.1")
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {sentinel}\nbind 127.0.0.1\nsentinel monitor label-sets 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds label-sets 500\nsentinel failover-timeout label-sets 3000\n"
    )
    binary, following = system_server(), ("--replicaof", "127.0.0.1", str(master))
    with (
        server_process(binary, folder / "master", "--port", str(master), *local) as first,
        server_process(binary, folder / "replica", "--port", str(replica), *local, *following),
    ):
        wait_for_port(master)
        wait_for_port(replica)
        _wait_synced(replica)
        command = tied_command(system_server("redis-sentinel"), str(configuration))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as guard:
            try:
                wait_for_port(sentinel)
                _wait_known(sentinel)
                yield Guarded(sentinel, first, replica)
            finally:
                guard.kill()


@contextmanager
def one_node_cluster(binary: str, folder: Path) -> Iterator[int]:
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes")
    with server_process(binary, folder, *options, "--cluster-port", str(free_port())):
        wait_for_port(port)
        with Redis(port=port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            _until(lambda: b"cluster_state:ok" in bytes(client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True)))
        yield port


def _wait_synced(replica: int) -> None:
    with Redis(port=replica) as client:
        _until(lambda: client.info("replication")["master_link_status"] == "up")


def _wait_known(sentinel: int) -> None:
    """A Sentinel learns of replicas from the master, ten seconds apart at worst; asked once at its start."""
    with Redis(port=sentinel) as client:
        _until(lambda: len(client.sentinel_slaves("label-sets")) == 1)


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
