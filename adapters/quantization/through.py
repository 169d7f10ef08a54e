"""What may stand between a learnt context and the towers: nothing, or a quantiser."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Through(Protocol):
    """Follows one context through one fit."""

    def __call__(self, ctx: Tensor, /) -> Tensor:
        """What a forward pass of the fit sees of the context, differentiable, in its shape."""
        ...

    def seal(self, ctx: Tensor, /) -> Tensor:
        """What is served and stored of the context once the fit is over."""
        ...


class AsLearnt:
    """The context itself."""

    def __call__(self, ctx: Tensor) -> Tensor:
        return ctx

    def seal(self, ctx: Tensor) -> Tensor:
        return ctx
