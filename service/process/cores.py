"""How many processor cores there are to compute on: the CPU mask, a container's CPU quota, and cores that are really
two threads of one. Reads the system, not the settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Cores this process may keep busy. A quota counts by its whole cores: threads that wait for each other suffer more
    from being stopped in every period than from being one fewer."""
    return int(max(1, min(len(mask()), quota())))


def compute_cores() -> int:
    """The same without second threads of one core: they share its multipliers, and matrix products gain nothing."""
    return max(1, min(usable_cores(), physical(mask())))


def mask() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def quota(cgroups: Path = CGROUPS, process: Path = PROCESS) -> float:
    """Cores' worth of time that the control group grants; infinite without a limit."""
    return min(_quotas(cgroups, process), default=float("inf"))


def physical(cpus: set[int], topology: Path = TOPOLOGY) -> int:
    """Cores among these logical ones."""
    siblings = {_read(topology / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in cpus}
    return len(siblings)


def _quotas(cgroups: Path, process: Path) -> Iterator[float]:
    """Version 2 has `cpu.max` in the group and in all above it; version 1 two files in one place."""
    lines = [line.partition("::")[2] for line in _read(process).splitlines() if line.startswith("0::")]
    group = cgroups / lines[0].strip("/") if lines else cgroups
    for folder in (group, *group.parents):
        limit, _, period = _read(folder / "cpu.max").partition(" ")
        if limit.isdigit() and period.isdigit():
            yield int(limit) / int(period)
    limit, period = (_read(cgroups / "cpu" / f"cpu.cfs_{what}_us") for what in ("quota", "period"))
    if limit.isdigit() and period.isdigit():
        yield int(limit) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
