"""Class names to token ids with free slots for learnt context: where the name stands is data, not a code path.

Tensor suffixes: N prompts, L tokens, M context tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
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

    @property
    def lead_N(self) -> Tensor:
        """Slots of each prompt, in their order, right behind the start mark: with a shared context they begin alike."""
        places_M = torch.arange(1, 1 + self.slots_NM.shape[1], device=self.slots_NM.device)
        return (self.slots_NM == places_M).cumprod(dim=1).sum(dim=1)

    @property
    def longest_rest(self) -> int:
        """Tokens of the longest prompt behind what a shared context lets it begin with."""
        return int((self.eot_N - self.lead_N).max())

    def order(self) -> Tensor:
        """Rows such that prompts with as much left behind their beginnings stand together."""
        lead_N = self.lead_N
        return ((self.eot_N - lead_N) * (self.slots_NM.shape[1] + 1) + lead_N).argsort(stable=True)

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
    sizes_N = torch.tensor([len(ids) for ids in names])
    row_T = torch.arange(len(names)).repeat_interleave(sizes_N)
    place_T = torch.arange(len(row_T)) - (sizes_N.cumsum(0) - sizes_N)[row_T]
    after_N1 = (1 + before + sizes_N)[:, None]
    eot_N = sizes_N + context + len(stop) + 1
    rows_N = torch.arange(len(names))
    ids_NL = torch.full((len(names), int(eot_N.max()) + 1), FREE)
    ids_NL[:, 0] = sot
    ids_NL[row_T, 1 + before + place_T] = torch.tensor(list(chain.from_iterable(names)), dtype=torch.long)
    stop_S = torch.tensor(list(stop), dtype=torch.long)
    ids_NL[rows_N[:, None], after_N1 + context - before + torch.arange(len(stop_S))] = stop_S
    ids_NL[rows_N, eot_N] = eot
    slots_NM = torch.cat([torch.arange(1, 1 + before).expand(len(names), -1),
                          after_N1 + torch.arange(context - before)], dim=1)  # fmt: skip
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
