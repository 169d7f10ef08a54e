"""The transformer of a causal text tower, opened so that what prompts begin with alike is computed once: its keys and
values serve every prompt, for a causal tower cannot see what follows. Exact, also for gradients.

Tensor suffixes: N prompts, L tokens, W width, P beginnings, K their tokens, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Enter = Callable[[int, Tensor], Tensor]
"""What is written over hidden states at the entrance of a block, by its number."""


def unchanged(index: int, x: Tensor) -> Tensor:
    """Nothing is written."""
    return x


@dataclass(frozen=True, slots=True, eq=False)
class Beginnings:
    """Keys and values [P, H, K, W / H] of P beginnings in every block, padded at their ends."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]

    @classmethod
    def joined(cls, parts: Sequence[Beginnings]) -> Beginnings:
        """Of one length, one after the other."""
        keys = [torch.cat(block) for block in zip(*(part.keys for part in parts), strict=True)]
        values = [torch.cat(block) for block in zip(*(part.values for part in parts), strict=True)]
        return cls(keys, values)


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """How each prompt of a pass begins: with the first `taken_N` tokens, at most `longest`, of beginning `which_N`."""

    of: Beginnings
    which_N: Tensor
    taken_N: Tensor
    longest: int

    def keys_values(self, block: int) -> tuple[Tensor, Tensor]:
        """[N, H, longest, W / H] each. A lone beginning is not copied for every prompt."""
        banks = (self.of.keys[block], self.of.values[block])
        if len(banks[0]) == 1:
            key, value = (bank[:, :, : self.longest].expand(len(self.which_N), -1, -1, -1) for bank in banks)
        else:
            key, value = (bank[self.which_N, :, : self.longest] for bank in banks)
        return key, value


class CausalBlocks:
    """The residual attention blocks of open_clip's plain text transformer, on [N, L, W]."""

    def __init__(self, blocks: Sequence[Any]) -> None:
        self._blocks = [_Block(block) for block in blocks]

    @staticmethod
    def of(tower: Any) -> CausalBlocks | None:
        """None for blocks of another kind."""
        blocks = list(tower.transformer.resblocks)
        return CausalBlocks(blocks) if blocks and all(map(_is_plain, blocks)) else None

    def begin(self, x_PKW: Tensor, enter: Enter = unchanged) -> Beginnings:
        """Embedded beginnings, with positions, to what later tokens want of them."""
        length = x_PKW.shape[1]
        mask = _causal(length, x_PKW)
        keys, values = [], []
        for index, block in enumerate(self._blocks):
            x_PKW = enter(index, x_PKW)
            normed = block.normed(x_PKW)
            key, value = block.keys_values(normed)
            keys.append(key)
            values.append(value)
            if index + 1 < len(self._blocks):
                x_PKW = block.finish(x_PKW, block.attend(block.queries(normed), key, value, mask))
        return Beginnings(keys, values)

    def ends(self, x_NLW: Tensor, end_N: Tensor, begun: Begun | None = None, enter: Enter = unchanged) -> Tensor:
        """Embedded prompts (what is left of them behind their beginnings), with positions, to the hidden states [N, W]
        at their ends. The last block looks from there alone, since nothing else of it is wanted."""
        mask = _causal(x_NLW.shape[1], x_NLW) if begun is None else _continued(x_NLW, begun)
        rows = torch.arange(len(x_NLW), device=x_NLW.device)
        for index, block in enumerate(self._blocks):
            x_NLW = enter(index, x_NLW)
            normed = block.normed(x_NLW)
            key, value = block.keys_values(normed)
            if begun is not None:
                before = begun.keys_values(index)
                key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
            if index + 1 < len(self._blocks):
                x_NLW = block.finish(x_NLW, block.attend(block.queries(normed), key, value, mask))
                continue
            queries = block.queries(normed[rows, end_N].unsqueeze(1))
            seen = mask.expand(len(rows), *mask.shape[1:])[rows, :, end_N].unsqueeze(2)
            return block.finish(x_NLW[rows, end_N].unsqueeze(1), block.attend(queries, key, value, seen)).squeeze(1)
        raise AssertionError("a transformer has blocks")


class _Block:
    def __init__(self, block: Any) -> None:
        self._block = block
        self._heads: int = block.attn.num_heads
        self._width: int = block.attn.embed_dim

    def normed(self, x: Tensor) -> Tensor:
        normed: Tensor = self._block.ln_1(x)
        return normed

    def queries(self, normed: Tensor) -> Tensor:
        return self._split(self._projected(normed, 0, self._width))

    def keys_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        both = self._projected(normed, self._width, 3 * self._width)
        return self._split(both[..., : self._width]), self._split(both[..., self._width :])

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = mixed.transpose(1, 2).flatten(2)
        out: Tensor = self._block.attn.out_proj(mixed)
        return out

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self._block.ls_1(attended)
        out: Tensor = x + self._block.ls_2(self._block.mlp(self._block.ln_2(x)))
        return out

    def _projected(self, normed: Tensor, start: int, stop: int) -> Tensor:
        attention = self._block.attn
        bias = attention.in_proj_bias
        out: Tensor = F.linear(normed, attention.in_proj_weight[start:stop], None if bias is None else bias[start:stop])
        return out

    def _split(self, x_NLW: Tensor) -> Tensor:
        return x_NLW.view(*x_NLW.shape[:-1], self._heads, -1).transpose(1, 2)


def _is_plain(block: Any) -> bool:
    attention = getattr(block, "attn", None)
    return (
        type(block).__name__ == "ResidualAttentionBlock"
        and not hasattr(block, "ln_1_kv")
        and isinstance(attention, nn.MultiheadAttention)
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def _causal(length: int, like: Tensor) -> Tensor:
    """Additive [1, 1, L, L]."""
    blocked = torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device)
    return blocked.triu(1)[None, None]


def _continued(x_NLW: Tensor, begun: Begun) -> Tensor:
    """Additive [N, 1, L, K + L]: each prompt sees as much of its beginning as it took."""
    own = _causal(x_NLW.shape[1], x_NLW)
    hidden_NK = torch.arange(begun.longest, device=x_NLW.device) >= begun.taken_N[:, None]
    before_NK = torch.zeros(hidden_NK.shape, dtype=x_NLW.dtype, device=x_NLW.device)
    before_NK = before_NK.masked_fill(hidden_NK, float("-inf"))
    before = before_NK[:, None, None].expand(-1, -1, x_NLW.shape[1], -1)
    return torch.cat([before, own.expand(len(before), -1, -1, -1)], dim=-1)
