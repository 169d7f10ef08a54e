"""What a class state says of images, whatever its method asks of the image path.

Tensor suffixes: B images, C classes, D joint width, J prompted layers, P prompts, V token width, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.base import Adapter, ClassState, ImageAdapter, ImageNeeds, VisualPrompts, cosine_logits
from adapters.clip import Backbone


def image_features(pixels_B3SS: Tensor, states: Sequence[ClassState], backbone: Backbone) -> Tensor:
    """Unit features [B, D] of uint8 images, each with the visual prompts of its own state; the states share their
    needs. Raises `BackboneError` when there are prompts and the tower takes none."""
    prompts = [state.visual_prompts for state in states]
    if prompts[0] is None:
        return backbone.image.encode(pixels_B3SS)
    shared = all(state is states[0] for state in states)
    tokens = prompts[0].tokens if shared else torch.stack([one.tokens for one in prompts if one is not None])
    return backbone.image.encode_prompted(pixels_B3SS, VisualPrompts(tokens, prompts[0].before_norm))


def state_logits(pixels: Tensor, state: ClassState, adapter: Adapter, backbone: Backbone) -> Tensor:
    """Logits [B, C], on the CPU, of uint8 images [B, 3, S, S]; a method that works on views gets each as its only
    one."""
    needs: ImageNeeds = adapter.needs(state)
    if needs.scored_by:
        assert isinstance(adapter, ImageAdapter)
        return adapter.logits(pixels, state, backbone).detach().float().cpu()
    with torch.no_grad():
        return cosine_logits(image_features(pixels, [state] * len(pixels), backbone), state).float().cpu()
