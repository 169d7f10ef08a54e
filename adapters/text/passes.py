"""Passes through an opened causal text tower: token ids or embeddings in, features out. Cut at the end mark, sorted by
length, shared beginnings computed once, in slices of bounded time.

Tensor suffixes: N prompts, L tokens, M context tokens, W text width, D joint width, R tokens behind the beginning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapters.text.causal import Beginnings, Begun, CausalBlocks, Enter, unchanged
from adapters.text.chunked import Tick
from adapters.text.layout import PromptLayout
from adapters.text.shared_beginnings import Sharing, shared_beginnings

SLICE_FLOPS = {"cpu": 1.5e9}
"""Work of a slice: about 10 to 20 ms of one core."""
DEVICE_SLICE_FLOPS = 2e12
"""On any other device."""
LEAST_ROWS, LEAST_GRAPH_ROWS = 24, 8
"""Smaller slices would read the weights of a large tower more often than they use them."""


class TextPasses:
    def __init__(self, tower: Any, blocks: CausalBlocks | None, *, device: torch.device) -> None:
        """Without `blocks` the tower's own transformer runs, and nothing is shared."""
        self._tower, self._blocks, self._device = tower, blocks, device
        self._dtype: torch.dtype = tower.transformer.get_cast_dtype()
        self.table: Tensor = tower.token_embedding.weight
        depth = len(tower.transformer.resblocks)
        self._token_flops = 24 * depth * self.table.shape[1] ** 2
        self._start: Beginnings | None = None

    def rows_at_once(self, tokens: int, *, graph: bool = False) -> int:
        """Prompts of so many tokens that make a slice: a pass, or the longer half of one with its gradient."""
        work = SLICE_FLOPS.get(self._device.type, DEVICE_SLICE_FLOPS) / (2 if graph else 1)
        return max(LEAST_GRAPH_ROWS if graph else LEAST_ROWS, int(work / (self._token_flops * max(1, tokens))))

    def texts(self, ids_NL: Tensor, end_N: Tensor, tick: Tick) -> Tensor:
        """Float32 rows [N, D] of the tower's own lengths, without a graph."""
        ids_NL = ids_NL[:, : int(end_N.max()) + 1]
        if self._blocks is None:
            sharing, kept = None, None
            rest_N = end_N + 1
        else:
            sharing = shared_beginnings(ids_NL.numpy(), end_N.numpy())
            kept = self._beginnings(ids_NL, sharing, tick)
            rest_N = end_N + 1 - torch.from_numpy(sharing.taken_N)
        order_N = rest_N.argsort(descending=True)
        parts, start = [], 0
        while start < len(order_N):
            rows_n = order_N[start : start + self.rows_at_once(int(rest_N[order_N[start]]))]
            start += len(rows_n)
            parts.append(self._text_rows(ids_NL[rows_n], end_N[rows_n], self._begun(kept, sharing, rows_n)))
            tick()
        return torch.cat(parts)[order_N.argsort().to(self._device)]

    def prompts(self, ctx_MW: Tensor, layout: PromptLayout, deep_IMW: Tensor | None) -> Tensor:
        """Float32 rows [N, D] of the tower's own lengths, differentiable in the contexts."""
        n, length = layout.ids_NL.shape
        ids_NL, slots_NM = layout.ids_NL.to(self._device), layout.slots_NM.to(self._device)
        slots_NMW = slots_NM.unsqueeze(-1).expand(-1, -1, self.table.shape[1])
        ctx_NMW = ctx_MW.to(self._dtype).expand(n, -1, -1)
        x_NLW = self._embed(ids_NL).scatter(1, slots_NMW, ctx_NMW) + self._positions()[:length]
        deep = None if deep_IMW is None else deep_IMW.to(self._dtype)
        end_N = layout.eot_N.to(self._device)
        if self._blocks is None:
            return self._whole(x_NLW, end_N, _written(deep, slots_NM, 0))
        lead_N = layout.lead_N.to(self._device) if ctx_MW.ndim == 2 else torch.zeros_like(end_N)
        if deep is not None:
            lead_N = lead_N.min().expand(n)
        begun = self._led(x_NLW, lead_N, deep)
        behind_N = end_N - begun.taken_N
        rest_NRW = _behind(x_NLW, begun.taken_N, int(behind_N.max()) + 1)
        write = _written(deep, slots_NM - begun.taken_N[:, None], begun.longest - 1)
        return self._features(self._blocks.ends(rest_NRW, behind_N, begun, write))

    def embedded(self, x_NLW: Tensor) -> Tensor:
        """Whole sequences of embeddings, without positions, that end with their end marks."""
        n, length = x_NLW.shape[:2]
        x_NLW = x_NLW.to(self._dtype) + self._positions()[:length]
        return self._whole(x_NLW, torch.full((n,), length - 1, device=x_NLW.device), unchanged)

    def _led(self, x_NLW: Tensor, lead_N: Tensor, deep_IMW: Tensor | None) -> Begun:
        """All begin with the start mark, each with so many tokens of the context behind it."""
        assert self._blocks is not None
        leader, longest = int(lead_N.argmax()), int(lead_N.max()) + 1
        if longest > 1:
            enter = _written_behind_start(deep_IMW, longest - 1)
            kept = self._blocks.begin(x_NLW[leader : leader + 1, :longest], enter)
        else:
            kept = self._start = self._start or self._begin_start(x_NLW[:1, :1])
        taken_N = lead_N + 1
        return Begun(kept, torch.zeros_like(taken_N), taken_N, longest)

    @torch.no_grad()
    def _begin_start(self, x_11W: Tensor) -> Beginnings:
        assert self._blocks is not None
        return self._blocks.begin(x_11W)

    def _beginnings(self, ids_NL: Tensor, sharing: Sharing, tick: Tick) -> Beginnings:
        assert self._blocks is not None
        longest = int(sharing.taken_N.max())
        ids_PK = ids_NL[torch.from_numpy(sharing.heads_P), :longest]
        parts = []
        for ids_pK in ids_PK.split(self.rows_at_once(longest)):
            parts.append(self._blocks.begin(self._embed(ids_pK.to(self._device)) + self._positions()[:longest]))
            tick()
        return Beginnings.joined(parts)

    def _text_rows(self, ids_nL: Tensor, end_n: Tensor, begun: Begun | None) -> Tensor:
        x_nLW = self._embed(ids_nL.to(self._device)) + self._positions()[: ids_nL.shape[1]]
        end_n = end_n.to(self._device)
        if begun is None:
            return self._whole(x_nLW, end_n, unchanged)
        assert self._blocks is not None
        behind_n = end_n - begun.taken_N
        rest_nRW = _behind(x_nLW, begun.taken_N, int(behind_n.max()) + 1)
        return self._features(self._blocks.ends(rest_nRW, behind_n, begun))

    def _begun(self, kept: Beginnings | None, sharing: Sharing | None, rows_n: Tensor) -> Begun | None:
        if kept is None or sharing is None:
            return None
        which_n, taken_n = (torch.from_numpy(one)[rows_n] for one in (sharing.which_N, sharing.taken_N))
        return Begun(kept, which_n.to(self._device), taken_n.to(self._device), int(taken_n.max()))

    def _whole(self, x_NLW: Tensor, end_N: Tensor, enter: Enter) -> Tensor:
        if self._blocks is not None:
            return self._features(self._blocks.ends(x_NLW, end_N, None, enter))
        length = int(end_N.max()) + 1
        x_NLW, mask = x_NLW[:, :length], self._tower.attn_mask[:length, :length]
        for index, block in enumerate(self._tower.transformer.resblocks):
            x_NLW = block(enter(index, x_NLW), attn_mask=mask)
        return self._features(x_NLW[torch.arange(len(x_NLW), device=x_NLW.device), end_N])

    def _features(self, ends_NW: Tensor) -> Tensor:
        pooled_NW, projection = self._tower.ln_final(ends_NW), self._tower.text_projection
        if projection is not None:
            pooled_NW = projection(pooled_NW) if isinstance(projection, nn.Linear) else pooled_NW @ projection
        features_ND: Tensor = pooled_NW.float()
        return features_ND

    def _embed(self, ids_NL: Tensor) -> Tensor:
        embedded: Tensor = self._tower.token_embedding(ids_NL)
        return embedded.detach().to(self._dtype)

    def _positions(self) -> Tensor:
        positions: Tensor = self._tower.positional_embedding
        return positions.to(self._dtype)


def _behind(x_NLW: Tensor, taken_N: Tensor, length: int) -> Tensor:
    """The next `length` positions of each row behind those that are taken; past its end, whatever stands there last."""
    columns_NR = (taken_N[:, None] + torch.arange(length, device=x_NLW.device)).clamp(max=x_NLW.shape[1] - 1)
    return x_NLW.gather(1, columns_NR.unsqueeze(-1).expand(-1, -1, x_NLW.shape[2]))


def _written_behind_start(deep_IMW: Tensor | None, count: int) -> Enter:
    def enter(index: int, x_PKW: Tensor) -> Tensor:
        if deep_IMW is None or not 0 < index <= len(deep_IMW):
            return x_PKW
        return torch.cat([x_PKW[:, :1], deep_IMW[index - 1, :count].expand(len(x_PKW), -1, -1)], dim=1)

    return enter


def _written(deep_IMW: Tensor | None, slots_NM: Tensor, skipped: int) -> Enter:
    """Into the slots from the one behind the skipped ones on."""
    slots_Nm = slots_NM[:, skipped:]

    def enter(index: int, x_NLW: Tensor) -> Tensor:
        if deep_IMW is None or not 0 < index <= len(deep_IMW):
            return x_NLW
        shape = (*slots_Nm.shape, x_NLW.shape[-1])
        return x_NLW.scatter(1, slots_Nm.unsqueeze(-1).expand(shape), deep_IMW[index - 1, skipped:].expand(shape))

    return enter
