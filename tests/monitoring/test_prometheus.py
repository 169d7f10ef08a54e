"""A real Prometheus scrapes the real service; what dashboards and rules ask for comes back with data."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.process import ServiceProcess, free_port, running_service, tied_command
from tests.e2e.calls import LABELS, classify, photo, upload, wait_until
from tests.monitoring.tools import PROMETHEUS, expressions, rules, tool

RATE = "30s"
NEEDS_TROUBLE = {
    "Hung up", "Leases", "Dependency errors", "Tower caches", "Joined", "Adaptations ended", "Bytes kept",
    "Replicas", "Adaptations by worker",
}  # fmt: skip
"""Panels that may have nothing to show while all is well: their series begin with the first event, or in a cluster."""


class Server:
    def __init__(self, folder: Path, target: str) -> None:
        self.port = free_port()
        for name in ("recording.yml", "alerts.yml"):
            content = (PROMETHEUS / name).read_text(encoding="utf-8").replace("interval: 30s", "interval: 1s")
            (folder / name).write_text(content, encoding="utf-8")
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self.command = tied_command(
            tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
        )  # fmt: skip
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False)

    def ask(self, expression: str) -> list[Any]:
        answer = self.http.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, (expression, answer.text)
        found: list[Any] = answer.json()["data"]["result"]
        return found

    def has(self, expression: str) -> bool:
        try:
            return bool(self.ask(expression))
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    tool("prometheus")
    with running_service(threads="1", engine="torch", max_pixels="200000") as running:
        yield running


def make_traffic(service: ServiceProcess) -> None:
    classify(service, "things")
    headers = {"Content-Type": "image/jpeg"}
    service.client.post(
        "/v1/classify", params={"label_set": "things", "reject_below": 0.99}, content=photo("cat"), headers=headers
    )
    service.client.post(
        "/v1/classify", params={"label_set": "things", "top_k": 5000}, content=photo("cat"), headers=headers
    )


@pytest.fixture(scope="module")
def prometheus(service: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a few seconds of traffic scraped."""
    folder = tmp_path_factory.mktemp("prometheus")
    server = Server(folder, f"127.0.0.1:{service.port}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(server.command, stdout=log, stderr=log)
    try:
        make_first(service)
        wait_until(lambda: server.has('count_over_time(up{job="selftpt"}[1m]) > 1'))
        for _ in range(6):
            make_traffic(service)
            time.sleep(0.5)
        wait_until(lambda: server.has("selftpt:requests:rate5m > 0"))
        yield server
    finally:
        server.http.close()
        process.terminate()
        process.wait(10)


def make_first(service: ServiceProcess) -> None:
    upload(service, LABELS, name="things")
    make_traffic(service)
    upload(service, ["one", "two"], name="more", wait=30)


def test_every_panel_comes_back_with_data(prometheus: Server) -> None:
    empty = {
        title for title, expression in expressions() if not prometheus.ask(expression.replace("[1m]", f"[{RATE}]"))
    }
    assert empty - NEEDS_TROUBLE == set()


def test_recorded_series_have_values_and_objectives_are_met_by_none_less_than_nothing(prometheus: Server) -> None:
    for rule in rules("recording.yml"):
        found = prometheus.ask(rule["record"])
        assert found, rule["record"]
        assert all(float(one["value"][1]) >= 0 for one in found), rule["record"]


def test_rules_are_healthy_and_no_alert_cries_without_need(prometheus: Server) -> None:
    groups = prometheus.http.get("/api/v1/rules").json()["data"]["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert len(loaded) == len(rules("alerts.yml")) + len(rules("recording.yml"))
    assert [rule["lastError"] for rule in loaded if rule.get("lastError")] == []
    firing = [rule["name"] for rule in loaded if rule.get("state") == "firing"]
    assert set(firing) <= {"SelftptSlownessBurnFast", "SelftptSlownessBurnSlow"}  # a busy machine is slow


def test_the_target_is_up_and_its_answer_is_openmetrics(prometheus: Server) -> None:
    (target,) = prometheus.http.get("/api/v1/targets").json()["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
