"""Peak memory of a stretch of work in this process."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

MIB = 1024 * 1024
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(slots=True)
class Peak:
    """MiB by which resident memory, and allocated device memory, grew at most above what was there at the start."""

    rss_mib: float = 0.0
    cuda_mib: float = 0.0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Filled in at the end of the block. Without /proc the growth of the process's own maximum is taken, which sees
    only work that exceeds all work before."""
    found = Peak()
    cuda = torch.cuda.is_available()
    before, cuda_before = _rss(), 0
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        cuda_before = torch.cuda.memory_allocated()
    try:
        yield found
    finally:
        found.rss_mib = max(0.0, _peak() - before) / MIB
        if cuda:
            torch.cuda.synchronize()
            found.cuda_mib = max(0, torch.cuda.max_memory_allocated() - cuda_before) / MIB


def _rss() -> float:
    """Bytes in use now; sets the kernel's peak back to it where it can."""
    if not CLEAR.exists():
        return _peak()
    CLEAR.write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak() -> float:
    if CLEAR.exists():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _status(name: str) -> float:
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[1]) * 1024
