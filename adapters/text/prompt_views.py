"""A label set's names in the places relative to the context that Self-TPT contrasts (arXiv 2408.05775).

Tensor suffixes: N texts, V views (the learnt positions, then the hand-written prompt), D joint width, M context tokens,
W text width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.text.chunked import Slices
from adapters.text.layout import POSITIONS, PromptLayout, concatenate, lay_out
from adapters.text.tower import TextTower


class Prompts:
    """Texts in the learnt positions (front, middle, end), position by position. `owners` names the class of each text;
    without it every text is a class of its own."""

    def __init__(
        self, text: TextTower, texts: tuple[str, ...], *, context: int, owners: Sequence[int] | None = None
    ) -> None:
        names = [text.tokens(t) for t in texts]
        stop = text.tokens(".")
        self.count = len(texts)
        self.owners_N = torch.tensor(list(range(len(texts)) if owners is None else owners))
        self.layout = concatenate(
            [lay_out(names, context=context, position=p, stop=stop, sot=text.sot, eot=text.eot) for p in POSITIONS]
        )
        self._text = text

    @property
    def classes(self) -> int:
        return len(self.owners_N.unique())

    def batch(self, rows: Tensor) -> PromptLayout:
        """The chosen texts in all positions."""
        return self.layout.rows(torch.cat([rows + place * self.count for place in range(len(POSITIONS))]))

    def sorted(self, layout: PromptLayout) -> tuple[PromptLayout, Tensor]:
        """The prompts in an order that is cheap to encode, and where each of them stands then."""
        order = layout.order()
        return layout.rows(order), order.argsort()

    def slices(self, layout: PromptLayout, *, held: int) -> Slices:
        return self._text.slices(layout, held=held)

    def encode(self, ctx_MW: Tensor, layout: PromptLayout, part: slice) -> Tensor:
        return self._text.encode_prompts(ctx_MW, layout.rows(part))


def project(features_ND: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    """The projection head that stage 1 learnt; without one, contrast in the joint space itself."""
    return F.linear(features_ND, head["weight"].to(features_ND.device)) if head else features_ND


def stacked_views(learnt_ND: Tensor, hand_ND: Tensor) -> Tensor:
    """Learnt views as `Prompts` lays them out, and the hand-written one, to [V, N, D]."""
    return torch.cat([learnt_ND, hand_ND]).view(len(POSITIONS) + 1, len(hand_ND), -1)


def mean_view(views_VND: Tensor, *, hand_share: float) -> Tensor:
    """Unit rows [N, D]: the learnt views share what the hand-written one leaves."""
    return F.normalize((1 - hand_share) * views_VND[:-1].mean(dim=0) + hand_share * views_VND[-1], dim=-1)
