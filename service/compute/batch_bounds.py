"""How long batches may be, by who waits. Who comes next waits for all of a batch, but short ones cost throughput, on a
CPU a tenth to a quarter."""

from __future__ import annotations

from dataclasses import replace

from service.compute.backlog import Backlog
from service.compute.batch_costs import Bounds

ALIKE = Bounds(long=0.04, waste=0.03)

UNEVEN = Bounds(long=0.01, waste=0.5)
"""While a client has few images on their way beside others' many."""

UNEVEN_OF_LATE = Bounds(long=0.02, waste=0.15)
"""It may come again."""

OF_LATE = 10.0
"""Seconds."""


def bounds_by(backlog: Backlog) -> Bounds:
    """However short batches should be, they may hold half as many images as there are clients."""
    if backlog.evened > OF_LATE:
        return ALIKE
    return replace(UNEVEN if backlog.uneven else UNEVEN_OF_LATE, least=backlog.clients // 2)
