"""Which token sequences begin alike, so that the tower computes each of these beginnings once. Runs no model.

Array suffixes: N sequences, L tokens, P beginnings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]

SHARED_BY = 16
"""Sequences that must share a beginning; of fewer sequences in all, every one."""


@dataclass(frozen=True, slots=True, eq=False)
class Sharing:
    """Sequence n starts with the first `taken_N[n]` tokens of sequence `heads_P[which_N[n]]`."""

    heads_P: Whole
    which_N: Whole
    taken_N: Whole


def shared_beginnings(ids_NL: Whole, end_N: Whole, *, shared_by: int = SHARED_BY) -> Sharing:
    """The longest beginning of each sequence that enough others have, too. It never reaches the end mark, and it is at
    least the start mark, which all of them share."""
    count = len(ids_NL)
    enough = min(shared_by, count)
    group_N = np.zeros(count, dtype=np.int64)
    head_N, taken_N = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    growing_N = np.ones(count, dtype=bool)
    for place in range(1, int(end_N.max(initial=0))):
        pairs = group_N * (int(ids_NL.max()) + 1) + ids_NL[:, place]
        growing_N &= place < end_N
        _, first, group_N, sizes = np.unique(
            np.where(growing_N, pairs, -1), return_index=True, return_inverse=True, return_counts=True
        )
        growing_N &= sizes[group_N] >= enough
        if not growing_N.any():
            break
        head_N = np.where(growing_N, first[group_N], head_N)
        taken_N = np.where(growing_N, place + 1, taken_N)
    heads_P, which_N = np.unique(head_N, return_inverse=True)
    return Sharing(heads_P, which_N, taken_N)
