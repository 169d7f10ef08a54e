"""A real Ray cluster on this machine: two front ends, two workers, one Redis. Started by `selftpt serve --cluster`."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from benchmarks.names import class_names
from benchmarks.process import free_port, tied_command
from tests.e2e.calls import photo, wait_until
from tests.needs import missing
from tests.valkey import real_redis

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 4, 64
START_SECONDS = 240.0
SHAPE = (
    "front_ends_min=2",
    "front_ends_max=2",
    "workers_min=2",
    "workers_max=2",
    "front_end_cpus=0.1",
    "worker_cpus=0.1",
    "surge_percent=50",
)


@dataclass
class Cluster:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def replicas(self, kind: str) -> dict[int, float]:
        """Process ids of the replicas and the seconds of processor time they have used."""
        name = f"ray::ServeReplica:selftpt:{kind}"  # and the method, while one runs
        return {pid: cpu for pid, (_, title, cpu) in processes().items() if title.startswith(name)}

    def scrape(self) -> list[Sample]:
        """What all replicas say of themselves, whichever front end is asked."""
        text = httpx.get(f"{self.url}/metrics", timeout=60, trust_env=False).text
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def metric(self, name: str, **labels: str) -> float:
        """Sum over all replicas."""
        return sum(one.value for one in self.scrape() if one.name == name and labels.items() <= one.labels.items())

    def complete(self) -> bool:
        return [self.metric("selftpt_replicas", part=part) for part in ("front-end", "worker")] == [2, 2]


def processes() -> dict[int, tuple[int, str, float]]:
    """Process id to parent, title and processor seconds."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        ticks = int(fields[11]) + int(fields[12])
        found[int(folder.name)] = (int(fields[1]), title, ticks / os.sysconf("SC_CLK_TCK"))
    return found


def family(root: int) -> list[int]:
    parents = {pid: parent for pid, (parent, _, _) in processes().items()}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


@contextmanager
def running_cluster(folder: Path, redis_url: str) -> Iterator[Cluster]:
    port, log = free_port(), folder / "cluster.log"
    settings = {
        "redis_url": redis_url,
        "redis_timeout": "5",
        "data_dir": str(folder),
        "threads": "1",
        "engine": "torch",
    }
    environment = {
        **os.environ,
        **{f"SELFTPT_{name.upper()}": value for name, value in settings.items()},
        "OMP_NUM_THREADS": "1",
        "RAY_TMPDIR": "/tmp",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-m", "service", "serve", "--cluster", "--port", str(port)]
    command += [word for pair in SHAPE for word in ("--shape", pair)]
    with log.open("wb") as output:
        process = subprocess.Popen(tied_command(*command), stdout=output, stderr=output, env=environment)
    everybody = [process.pid]
    try:
        until = time.monotonic() + START_SECONDS
        while b"is ready on" not in log.read_bytes():
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.2)
        everybody = family(process.pid)
        yield Cluster(process, port, log)
        everybody += family(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        for pid in {*everybody, *family(process.pid)}:
            with suppress(ProcessLookupError):  # Ray's own processes may outlive a driver that was killed
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if importlib.util.find_spec("ray") is None:
        raise missing("Ray is not installed: pip install 'self-tpt-service[cluster]'")
    with real_redis() as redis, running_cluster(tmp_path_factory.mktemp("cluster"), redis.url) as running:
        yield running


def classify_call(labels: list[str]) -> dict[str, Any]:
    return {
        "params": {"labels": labels},
        "content": photo("coffee"),
        "headers": {"Content-Type": "image/jpeg", "Prefer": "wait=60"},
    }


async def rush(url: str, labels: list[str]) -> list[httpx.Response]:
    async def client() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=REQUESTS)
        async with httpx.AsyncClient(base_url=url, timeout=180, limits=limits, trust_env=False) as one:
            return list(
                await asyncio.gather(*(one.post("/v1/classify", **classify_call(labels)) for _ in range(REQUESTS)))
            )

    return [answer for part in await asyncio.gather(*(client() for _ in range(CLIENTS))) for answer in part]


@dataclass
class Load:
    """Requests one after the other from some threads, until left."""

    url: str
    statuses: Counter[int | str] = field(default_factory=Counter)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for one in self._threads:
            one.join()

    def answered(self, count: int) -> bool:
        return sum(self.statuses.values()) >= count

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=120, trust_env=False) as client:
            while not self._over.is_set():
                try:
                    self.statuses[client.post("/v1/classify", **classify_call(["cat", "dog", "cup"])).status_code] += 1
                except httpx.TransportError as error:
                    self.statuses[type(error).__name__] += 1
                self._over.wait(0.2)  # leaves the cores to those that start


def test_4_times_64_concurrent_first_requests_cost_one_adaptation(cluster: Cluster) -> None:
    answers = asyncio.run(rush(cluster.url, ["cat", "dog", "rush hour"]))
    assert Counter(answer.status_code for answer in answers) == {200: CLIENTS * REQUESTS}
    assert all(answer.json()["adapted"] for answer in answers)
    wait_until(cluster.complete, 60)
    assert cluster.metric("selftpt_adaptations_total") == 1
    assert cluster.metric("selftpt_worker_adaptations_total", part="worker") == 1


def test_one_scrape_shows_every_replica(cluster: Cluster) -> None:
    wait_until(cluster.complete, 60)
    shown: dict[str, set[str]] = {}
    for one in cluster.scrape():
        shown.setdefault(one.name, set()).add(one.labels.get("instance", ""))
    workers, everybody = shown["selftpt_worker_heartbeat_age_seconds"], shown["process_start_time_seconds"]
    assert (len(workers), len(everybody)) == (2, 4)
    assert shown["selftpt_device_memory_bytes"] == shown["selftpt_forward_duration_seconds_count"] & workers == workers
    assert cluster.metric("selftpt_images_total", outcome="ok", part="front-end") >= CLIENTS * REQUESTS
    assert cluster.metric("selftpt_batch_size_sum", part="worker") > 0
    assert cluster.metric("selftpt_ready") == 4


def test_the_adapting_worker_is_killed_under_load_another_one_finishes_and_no_answer_is_lost(cluster: Cluster) -> None:
    wait_until(cluster.complete, 60)
    with Load(cluster.url) as load:
        wait_until(lambda: load.answered(20), 120)
        before = cluster.replicas("worker")
        label_set = httpx.post(
            f"{cluster.url}/v1/label-sets", json={"classes": class_names(80, salt=7)}, timeout=60
        ).json()["id"]
        address = f"{cluster.url}/v1/label-sets/{label_set}"
        wait_until(lambda: 0 < httpx.get(address, timeout=60).json()["progress"] < 1, 60)
        busy = max(before, key=lambda pid: cluster.replicas("worker")[pid] - before[pid])
        os.kill(busy, signal.SIGKILL)
        done = sum(load.statuses.values())
        wait_until(lambda: httpx.get(address, timeout=60).json()["status"] == "ready", 90)
        wait_until(lambda: load.answered(done + 20), 120)
    assert set(load.statuses) == {200}
    assert busy not in cluster.replicas("worker")


def test_a_rolling_restart_under_load_fails_no_request(cluster: Cluster) -> None:
    wait_until(cluster.complete, 120)
    before = {*cluster.replicas("worker"), *cluster.replicas("front-end")}
    with Load(cluster.url) as load:
        wait_until(lambda: load.answered(10), 120)
        cluster.process.send_signal(signal.SIGHUP)
        wait_until(lambda: b"all replicas were replaced" in cluster.log.read_bytes(), 300)
        done = sum(load.statuses.values())
        wait_until(lambda: load.answered(done + 20), 120)
    assert set(load.statuses) == {200}
    wait_until(lambda: not before & {*cluster.replicas("worker"), *cluster.replicas("front-end")}, 120)
