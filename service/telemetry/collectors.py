"""Metrics that are asked for at scrape time rather than told: text passes and memory of the device."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

RESIDENT = re.compile(r"^(VmRSS|VmHWM):\s+(\d+) kB$", re.MULTILINE)


class Memory(NamedTuple):
    """Bytes. On a CPU: of this process, and of the machine."""

    in_use: float
    peak: float
    total: float


def device_memory(device: torch.device) -> Memory | None:
    """None where it cannot be told (a CPU elsewhere than on Linux)."""
    if device.type == "cuda":
        return Memory(
            torch.cuda.memory_reserved(device),
            torch.cuda.max_memory_reserved(device),
            torch.cuda.get_device_properties(device).total_memory,
        )
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            found = dict(RESIDENT.findall(status.read()))
    except OSError:
        return None
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Memory(1024.0 * int(found["VmRSS"]), 1024.0 * int(found["VmHWM"]), machine)


class TextForwards(Collector):
    """The text tower counts for itself."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("selftpt_text_forwards", "Prompts passed through the text tower.", self._count())


class MemoryCollector(Collector):
    def __init__(self, memory: Callable[[], Memory | None]) -> None:
        self._memory = memory

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "selftpt_device_memory_bytes",
            "Memory of the device: in_use, peak, total. On a CPU: of the process, and of the machine.",
            labels=["kind"],
        )
        found = self._memory()
        for kind, value in found._asdict().items() if found is not None else ():
            family.add_metric([kind], value)
        yield family
