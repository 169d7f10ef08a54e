"""kill -9 while label sets are being uploaded, again and again on one data directory: is every acknowledged one there
after the restart?"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import httpx

from benchmarks.names import class_names
from benchmarks.process import ServiceProcess
from benchmarks.report import progress, write, write_header, write_table

Uploads = dict[str, list[str]]
"""Class names by the id under which they were acknowledged."""

ASKING = 4
"""Connections that ask for what should be there."""


class Uploader:
    """Uploads ever new label sets from several connections until the service is gone."""

    def __init__(self, url: str, *, salt: int, adapter: str | None = None) -> None:
        self.acknowledged: Uploads = {}
        self._url = url
        self._adapter = {"adapter": adapter} if adapter else {}
        self._salts = count(salt)
        self._lock = threading.Lock()

    def run(self, connections: int) -> ThreadPoolExecutor:
        """Returns at once; shutting the pool down waits until every connection has noticed the end."""
        pool = ThreadPoolExecutor(connections)
        for _ in range(connections):
            pool.submit(self._upload)
        return pool

    def _upload(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30.0, trust_env=False) as client:
            while True:
                with self._lock:
                    names = class_names(3, salt=next(self._salts))
                try:
                    answer = client.post("/v1/label-sets", json={"classes": names, **self._adapter})
                except httpx.TransportError:
                    return
                if answer.is_success:
                    self.acknowledged[answer.json()["id"]] = names
                else:
                    time.sleep(0.05)  # told to wait, most likely: too many adaptations are queued


def missing(service: ServiceProcess, uploads: Uploads) -> list[str]:
    """Acknowledged label sets that are not there, or not with their own class names."""

    def there(one: str) -> bool:
        answer = service.client.get(f"/v1/label-sets/{one}")
        return answer.is_success and answer.json()["classes"] == uploads[one]

    with ThreadPoolExecutor(ASKING) as pool:
        return [one for one, found in zip(uploads, pool.map(there, uploads), strict=True) if not found]


def one_round(folder: Path, number: int, arguments: argparse.Namespace) -> Uploads:
    """What was acknowledged before the kill."""
    with ServiceProcess(folder) as service:
        service.wait_ready()
        uploader = Uploader(service.url, salt=number * 100_000, adapter=arguments.adapter)
        with uploader.run(arguments.connections):
            time.sleep(arguments.seconds)
            service.kill()
    return uploader.acknowledged


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of uploading before the kill")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--adapter", help="default: what the service takes where none is named")
    arguments = parser.parse_args(argv)
    write_header("Durability", "durability", argv)
    folder = Path(tempfile.mkdtemp(prefix="selftpt-"))
    everything: Uploads = {}
    rows = []
    try:
        for number in range(1, arguments.rounds + 1):
            acknowledged = one_round(folder, number, arguments)
            everything |= acknowledged
            with ServiceProcess(folder) as service:
                service.wait_ready()
                lost = missing(service, everything)
            rows.append((number, len(acknowledged), len(everything), len(everything) - len(lost), len(lost)))
            progress(f"round {number}: {len(acknowledged)} acknowledged, {len(lost)} of all lost")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_table(("round", "acknowledged", "acknowledged so far", "found", "lost"), rows)
    write("Each round: upload from all connections, kill -9, start again, ask for everything ever acknowledged.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
