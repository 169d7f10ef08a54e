"""Class names to token ids with free slots for learnt context: where the name stands is data, not a code path.

Tensor suffixes: N prompts, L tokens, M context tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Position = Literal["front", "middle", "end"]
POSITIONS: tuple[Position, ...] = ("front", "middle", "end")
"""Where the class name stands relative to the context (CoOp, arXiv 2109.01134; Self-TPT's views, 2408.05775)."""

FREE = 0
"""Id written into slots; it is overwritten by context before the tower sees it."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptLayout:
    """Prompts [start, context and name in some order, full stop, end], right-padded to the longest."""

    ids_NL: Tensor
    slots_NM: Tensor
    eot_N: Tensor

    def __len__(self) -> int:
        return int(self.ids_NL.shape[0])

    def rows(self, index_n: Tensor | slice) -> PromptLayout:
        """The chosen prompts, cut to the longest of them."""
        eot_n = self.eot_N[index_n]
        length = int(eot_n.max()) + 1
        return PromptLayout(self.ids_NL[index_n][:, :length], self.slots_NM[index_n], eot_n)


def lay_out(
    names: Sequence[Sequence[int]], *, context: int, position: Position, stop: Sequence[int], sot: int, eot: int
) -> PromptLayout:
    """Prompts for names given as token ids. `stop` are the ids of the full stop. Middle puts the first half of the
    context (rounded down) before the name."""
    before = {"front": 0, "middle": context // 2, "end": context}[position]
    length = max(len(ids) for ids in names) + context + len(stop) + 2
    ids_NL = torch.zeros(len(names), length, dtype=torch.long)
    slots_NM = torch.empty(len(names), context, dtype=torch.long)
    eot_N = torch.empty(len(names), dtype=torch.long)
    for row, name in enumerate(names):
        sequence = [sot, *[FREE] * before, *name, *[FREE] * (context - before), *stop, eot]
        ids_NL[row, : len(sequence)] = torch.tensor(sequence)
        after = 1 + before + len(name)
        slots_NM[row] = torch.tensor([*range(1, 1 + before), *range(after, after + context - before)])
        eot_N[row] = len(sequence) - 1
    return PromptLayout(ids_NL, slots_NM, eot_N)


def concatenate(layouts: Sequence[PromptLayout]) -> PromptLayout:
    """Layouts over the same context, one after the other."""
    length = max(layout.ids_NL.shape[1] for layout in layouts)
    ids = [torch.nn.functional.pad(layout.ids_NL, (0, length - layout.ids_NL.shape[1])) for layout in layouts]
    return PromptLayout(
        torch.cat(ids),
        torch.cat([layout.slots_NM for layout in layouts]),
        torch.cat([layout.eot_N for layout in layouts]),
    )
