"""docs/operations.md lists every metric as the service exports it; no label can grow without bound."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from service.telemetry.metrics import BUCKETS
from tests.monitoring.tools import watched_metrics

PAGE = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text(encoding="utf-8")
ENDINGS = {"counter": "_total", "info": "_info"}
FEW = {
    "adapter", "cache", "dependency", "event", "kind", "limit", "outcome", "part", "phase", "reason", "result", "route",
    "stage", "status", "tier", "work", "worker",
}  # fmt: skip


def rows() -> list[str]:
    metrics = watched_metrics()
    labels = {one._name: one._labelnames for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)}
    labels |= {"selftpt_device_memory_bytes": ("kind",), "selftpt_replicas": ("part",)}
    return [
        f"| `{family.name}{ENDINGS.get(family.type, '')}` | {family.type} "
        f"| {', '.join(f'`{label}`' for label in labels.get(family.name, ())) or 'none'} | {family.documentation} |"
        for family in sorted(metrics.registry.collect(), key=lambda one: one.name)
        if family.name.startswith("selftpt_")
    ]


def test_the_page_lists_exactly_the_metrics_with_their_help() -> None:
    listed = re.findall(r"^\| `selftpt_.*$", PAGE, re.MULTILINE)
    assert listed == rows()


def test_labels_are_words_of_the_service_and_never_ids() -> None:
    used = {label for row in rows() for label in re.findall(r"`([a-z0-9_]+)`", row.split("|")[3])}
    assert used <= FEW


def test_the_page_says_the_buckets() -> None:
    assert f"{len(BUCKETS)} buckets from {1000 * BUCKETS[0]:g} ms to {BUCKETS[-1]:g} s" in PAGE
