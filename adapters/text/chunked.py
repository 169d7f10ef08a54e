"""Text encoding in slices, with exact gradients in bounded memory (two-pass gradient caching, arXiv 2101.06983).

Few rows keep their graphs until the loss is known. For more, pass one encodes all rows without a graph, the loss is
taken on these features, and pass two encodes each slice again with a graph and feeds it its rows of the feature
gradient. Memory is set by `held`, not by the number of classes; the time between two ticks by the slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Encode = Callable[[slice], Tensor]
"""Rows of a fixed list of prompts to features [n, D], differentiable in the context."""

Tick = Callable[[], None]


def nothing() -> None:
    """The tick of a caller that has nothing to do between slices."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Rows per pass without a graph (`plain`) and with one (`graph`), and how many may be `held` with a graph."""

    plain: int
    graph: int
    held: int

    @classmethod
    def of(cls, chunk: int) -> Slices:
        return cls(chunk, chunk, chunk)

    def ticks(self, rows: int) -> int:
        """How often `backward_rows` ticks."""
        twice = 2 * -(-rows // self.graph)
        return twice if rows <= self.held else -(-rows // self.plain) + twice


@torch.no_grad()
def encode_rows(encode: Encode, rows: int, *, chunk: int, tick: Tick = nothing) -> Tensor:
    """Features [rows, D] without a graph."""
    parts = []
    for part in _parts(rows, chunk):
        parts.append(encode(part))
        tick()
    return torch.cat(parts)


@torch.no_grad()
def sum_rows(encode: Encode, owners_R: Tensor, sums_ND: Tensor, *, chunk: int, tick: Tick = nothing) -> Tensor:
    """Adds the features of row r to `sums_ND[owners_R[r]]`; only a slice of features is held besides."""
    for part in _parts(len(owners_R), chunk):
        features_rD = encode(part)
        sums_ND.index_add_(0, owners_R[part].to(features_rD.device), features_rD)
        tick()
    return sums_ND


def backward_rows(
    encode: Encode, rows: int, loss: Callable[[Tensor], Tensor], *, chunk: int | Slices, tick: Tick = nothing
) -> float:
    """Adds the gradient of `loss(features)` to the leaves behind `encode`; returns the loss."""
    slices = chunk if isinstance(chunk, Slices) else Slices.of(chunk)
    held: list[Tensor] = []
    if rows <= slices.held:
        for part in _parts(rows, slices.graph):
            held.append(encode(part))
            tick()
        features = torch.cat([one.detach() for one in held])
    else:
        features = encode_rows(encode, rows, chunk=slices.plain, tick=tick)
    features.requires_grad_()
    value = loss(features)
    value.backward()
    assert features.grad is not None
    for part in _parts(rows, slices.graph):
        if rows <= slices.held:
            again = held.pop(0)
        else:
            again = encode(part)
            tick()
        again.backward(features.grad[part])
        tick()
    return value.item()


def _parts(rows: int, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk))
