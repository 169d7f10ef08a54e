"""A sequence of image tokens on its way through transformer blocks, and the prompts that join it.

Tensor suffixes: B images, T tokens, V token width, J layers with prompts, P prompts per layer, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

from adapters.base import VisualPrompts
from adapters.errors import BackboneError

Layer = Callable[[Tensor], Tensor]


class TokenTower(Protocol):
    """An image tower cut where prompts can enter. Frozen; gradients flow to the prompts only."""

    token_width: int
    depth: int
    """Blocks at whose entrance prompts can stand."""
    version: str
    """Hash of what lies outside the open_clip model, "" if nothing does."""

    def stem(self, images_B3SS: Tensor) -> Tensor:
        """Normalised images to what does not depend on prompts, one row per image."""
        ...

    def features(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        """The stem's rows to image features [B, D], not normalised."""
        ...

    def tokens(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        """Last-block tokens [B, T, D], projected but without the final norm, and the image features [B, D]."""
        ...


def run(x_BTV: Tensor, prompts: VisualPrompts | None, *, norm: Layer, blocks: Iterable[Layer]) -> Tensor:
    """The embedded sequence through first norm and blocks, [B, T, V]; prompts stand at its end and are cut off again.

    Prompts carry no position, so the end is as good a place as any between the tokens.
    """
    layers = [] if prompts is None else layers_of(prompts, x_BTV)
    length = x_BTV.shape[1]
    if prompts is not None and prompts.before_norm:
        x_BTV = norm(torch.cat([x_BTV, layers[0]], dim=1))
    else:
        x_BTV = torch.cat([norm(x_BTV), *layers[:1]], dim=1)
    for index, block in enumerate(blocks):
        if 0 < index < len(layers):
            x_BTV = torch.cat([x_BTV[:, :length], layers[index]], dim=1)
        x_BTV = block(x_BTV)
    return x_BTV[:, :length]


def layers_of(prompts: VisualPrompts, like_BTV: Tensor) -> list[Tensor]:
    """The prompts of each layer, [B, P, V] in the sequence's precision."""
    tokens = prompts.tokens.to(like_BTV.device, like_BTV.dtype)
    if tokens.ndim == 3:  # one set for all images
        tokens = tokens.unsqueeze(0).expand(len(like_BTV), -1, -1, -1)
    return list(tokens.unbind(1))


def check_prompts(prompts: VisualPrompts, *, images: int, width: int, depth: int) -> None:
    """Raises `BackboneError` for prompts of another width, with more layers, or for another number of images."""
    *per_image, layers, _, found = prompts.tokens.shape
    if found != width or not 1 <= layers <= depth:
        raise BackboneError(
            f"visual prompts of {layers} layers and width {found} do not fit an image tower of {depth} layers and "
            f"width {width}"
        )
    if per_image not in ([], [images]):
        raise BackboneError(f"visual prompts for {per_image} images cannot run with {images} images")
