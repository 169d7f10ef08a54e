"""The garbage collector's settings, in a process of their own: they hold for all of it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc, json
from service.process.garbage import leave_out_what_stays
lasting = [[] for _ in range(50_000)]
left_out = leave_out_what_stays()
print(left_out > 50_000, any(one is lasting for one in gc.get_objects()), gc.get_threshold()[0])
"""


def test_what_is_there_at_the_start_is_not_looked_at_again() -> None:
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == ["True", "False", "10000"]
