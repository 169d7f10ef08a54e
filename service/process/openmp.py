"""How torch's native threads wait for each other. Decides nothing about how many there are."""

from __future__ import annotations

import os


def wait_without_spinning() -> None:
    """To be called before torch is imported. By default threads that wait at the end of a parallel loop spin; where
    the cores are shared with other work they then spin for a thread that is not running, and small loops become tens
    of times slower (an adaptation of 5 classes on 2 shared cores: 0.5 s when they sleep, 2 s and once 25 s when they
    spin)."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
