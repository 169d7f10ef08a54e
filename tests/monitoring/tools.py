"""Dashboards and rules as the tests read them, the names that the service exports, and Prometheus' own programs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from service.telemetry.collectors import Memory
from service.telemetry.gathering import Replicas
from service.telemetry.metrics import Metrics
from tests.needs import missing

DOCKER = Path(__file__).resolve().parents[2] / "docker"
DASHBOARDS = sorted((DOCKER / "grafana/dashboards").glob("*.json"))
PROMETHEUS = DOCKER / "prometheus"
BY_SCRAPER = {"up", "process_start_time_seconds", "process_cpu_seconds_total"}
NAME = re.compile(r"\b(?:selftpt[a-z0-9_]*(?::[a-z0-9_]+)*|up|process_[a-z_]+)\b(?=[{\[ )]|$)", re.MULTILINE)

Json = dict[str, Any]


def tool(name: str) -> str:
    """Skips where Prometheus is not installed; in CI (`CI=true`) that is a failure."""
    if path := shutil.which(name):
        return path
    raise missing(f"no {name} found: apt-get install prometheus")


def promtool(*arguments: str | Path, folder: Path = PROMETHEUS) -> str:
    command = [tool("promtool"), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def watched_metrics() -> Metrics:
    metrics = Metrics()
    metrics.watch_text_forwards(lambda: 0)
    metrics.watch_memory(lambda: Memory(1, 2, 3))
    metrics.registry.register(Replicas({"worker": 1}))  # of a cluster
    return metrics


def exported() -> set[str]:
    """Every sample name that /metrics can show, whether something was observed already or not."""
    endings = {
        "counter": ("_total",),
        "histogram": ("_bucket", "_count", "_sum"),
        "info": ("_info",),
        "gauge": ("",),
        "unknown": ("",),
    }
    families = watched_metrics().registry.collect()
    return BY_SCRAPER | {family.name + ending for family in families for ending in endings[family.type]}


def rules(name: str) -> list[Json]:
    content = yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules("recording.yml")}


def panels(path: Path) -> list[Json]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return [panel for panel in content["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Panel title and expression, with Grafana's variables filled in."""
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                yield panel["title"], filled(target["expr"])


def filled(expression: str, rate: str = "1m") -> str:
    return expression.replace("$__rate_interval", rate).replace("$job", ".*").replace("$instance", ".*")


def names_in(expression: str) -> set[str]:
    return set(NAME.findall(re.sub(r'"[^"]*"', '""', expression)))
