"""The allocator's thresholds, in a process of their own: they cannot be put back."""

from __future__ import annotations

import platform
import subprocess
import sys


def test_the_thresholds_are_taken_on_glibc() -> None:
    code = "from service.process.allocator import keep_large_blocks; print(keep_large_blocks())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == str(platform.libc_ver()[0] == "glibc")
