"""Class-chunked text encoding with exact gradients in bounded memory (two-pass gradient caching, arXiv 2101.06983).

Pass one encodes all rows without a graph; the loss is taken on these features; pass two encodes each chunk again with
a graph and feeds it its rows of the feature gradient. Memory is set by the chunk, not by the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Encode = Callable[[slice], Tensor]
"""Rows of a fixed list of prompts to features [n, D], differentiable in the context."""

Tick = Callable[[], None]


def nothing() -> None:
    """The tick of a caller that has nothing to do between chunks."""


@torch.no_grad()
def encode_rows(encode: Encode, rows: int, *, chunk: int, tick: Tick = nothing) -> Tensor:
    """Features [rows, D] without a graph."""
    parts = []
    for start in range(0, rows, chunk):
        parts.append(encode(slice(start, min(start + chunk, rows))))
        tick()
    return torch.cat(parts)


def backward_rows(
    encode: Encode, rows: int, loss: Callable[[Tensor], Tensor], *, chunk: int, tick: Tick = nothing
) -> float:
    """Adds the gradient of `loss(features)` to the leaves behind `encode`; returns the loss."""
    if rows <= chunk:
        value = loss(encode(slice(0, rows)))
        value.backward()
        tick()
        return value.item()
    features = encode_rows(encode, rows, chunk=chunk, tick=tick).requires_grad_()
    value = loss(features)
    value.backward()
    assert features.grad is not None
    for start in range(0, rows, chunk):
        part = slice(start, min(start + chunk, rows))
        encode(part).backward(features.grad[part])
        tick()
    return value.item()
