"""Class rows as a function of a learnt context: the prompts of a label set, encoded whole or class by class.

Tensor suffixes: N texts (names and aliases), C classes, M context tokens, W text width, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import LabelSet
from adapters.errors import LabelSetError
from adapters.learning.class_texts import OwnedTexts, named_texts
from adapters.text.chunked import Tick, backward_rows, encode_rows, nothing
from adapters.text.layout import Position, lay_out
from adapters.text.tower import TextTower


class PromptedClasses:
    """The prompts of a label set around M context tokens that all classes share ([M, W]) or have each ([C, M, W]).

    A class row is the unit mean of its name and aliases, joined in equal parts by that of its descriptions. Making one
    runs no model. Raises `LabelSetError` for a name that the context leaves no room for.
    """

    def __init__(self, text: TextTower, labels: LabelSet, *, context: int, position: Position, chunk: int) -> None:
        named = named_texts(labels)
        names, stop = [text.tokens(t) for t in named.texts], text.tokens(".")
        _check_room(text, labels, named, names, context + len(stop) + 2)
        self.classes, self.texts = len(labels.classes), len(names)
        self._layout = lay_out(names, context=context, position=position, stop=stop, sot=text.sot, eot=text.eot)
        self._owners_N = torch.tensor(named.owners)
        self._described = [(t, row) for row, entry in enumerate(labels.classes) for t in entry.descriptions]
        self._described_CD: Tensor | None = None
        self._text, self._chunk = text, chunk

    def rows(self, ctx: Tensor, *, tick: Tick = nothing) -> Tensor:
        """Unit rows [C, D] of all classes, without a graph."""
        texts = self._layout.order()
        slices = self._text.slices(self._layout, held=self._chunk)
        features_ND = encode_rows(self._encoder(ctx, texts), len(texts), chunk=slices.plain, tick=tick)
        return self._joined(features_ND, texts, torch.arange(self.classes))

    def backward(
        self, ctx: Tensor, classes_c: Tensor, loss: Callable[[Tensor], Tensor], *, tick: Tick = nothing
    ) -> float:
        """Adds the gradient of `loss(rows of the ascending classes_c)` to the leaves behind `ctx` and those that the
        loss itself holds; returns the loss. Only a chunk of prompts is held with its graph at a time."""
        texts = torch.isin(self._owners_N, classes_c).nonzero().flatten()
        self._describe()
        used = ctx.detach().requires_grad_()
        value = backward_rows(
            self._encoder(used, texts),
            len(texts),
            lambda features_nD: loss(self._joined(features_nD, texts, classes_c)),
            chunk=self._text.slices(self._layout, held=self._chunk),
            tick=tick,
        )
        ctx.backward(used.grad)  # once, whatever lies between the parameters and the context
        return value

    def _encoder(self, ctx: Tensor, texts: Tensor) -> Callable[[slice], Tensor]:
        def encode(part: slice) -> Tensor:
            chosen = texts[part]
            own = ctx if ctx.ndim == 2 else ctx[self._owners_N[chosen].to(ctx.device)]
            return self._text.encode_prompts(own, self._layout.rows(chosen))

        return encode

    def _joined(self, features_nD: Tensor, texts: Tensor, classes_c: Tensor) -> Tensor:
        owners_n = torch.searchsorted(classes_c, self._owners_N[texts]).to(features_nD.device)
        sums_cD = features_nD.new_zeros(len(classes_c), features_nD.shape[-1]).index_add(0, owners_n, features_nD)
        rows_cD = F.normalize(sums_cD, dim=-1)
        described_CD = self._describe()
        if described_CD is None:
            return rows_cD
        return F.normalize(rows_cD + described_CD[classes_c.to(described_CD.device)], dim=-1)

    def _describe(self) -> Tensor | None:
        """Rows of the descriptions, zero where there are none; encoded at the first use."""
        if self._described and self._described_CD is None:
            described = OwnedTexts(tuple(t for t, _ in self._described), tuple(row for _, row in self._described))
            features_ND = self._text.encode_texts(described.texts)
            self._described_CD = described.mean_rows(features_ND, self.classes)
        return self._described_CD


def _check_room(text: TextTower, labels: LabelSet, named: OwnedTexts, names: list[list[int]], taken: int) -> None:
    for owner, ids in zip(named.owners, names, strict=True):
        if len(ids) + taken > text.context_length:
            raise LabelSetError(
                f"{labels.names[owner]!r} has {len(ids)} tokens; {text.context_length - taken} are left beside the "
                "learnt context",
                field=f"classes[{owner}].name",
            )
