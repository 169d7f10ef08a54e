"""Thresholds of glibc's allocator, set once when the process starts. Elsewhere than on glibc nothing happens."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MIB = 1024 * 1024


def keep_large_blocks() -> bool:
    """Lets freed activations be used again instead of going back to the system after every layer; without this each
    pass faults all its pages in anew, which on the CPU costs up to half of its time. False where it cannot be set."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {_M_MMAP_THRESHOLD: 1024 * _MIB, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * _MIB}
    taken = [mallopt(name, value) == 1 for name, value in wanted.items()]
    return all(taken)
