"""Learnt prompts as packed bytes, and the class weights that these bytes give back.

A packed prompt and the class names are all that has to last: the weights are made of them by one text pass per name.
Tensor suffixes: C classes, D joint width, M context tokens, W text width, J layers, P prompts, V image token width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from adapters.base import VISUAL_PROMPTS, VISUAL_PROMPTS_BEFORE_NORM, Adapter, ClassState, LabelSet
from adapters.clip import Backbone
from adapters.methods.coop import CoOp
from adapters.methods.dapt import DAPT
from adapters.methods.maple import MaPLe, deep_prompts
from adapters.methods.self_tpt import SelfTPT
from adapters.quantization.quantizer import pack, unpack
from adapters.text.prompted_classes import PromptedClasses

CONTEXT, PACKED, PACKED_VISUAL = "context", "packed", "packed_visual_prompts"
"""Names among the extras of a class state: the learnt text prompts, and the bytes of prompts of either tower."""


def packed_extras(state: ClassState, bits: int) -> dict[str, Tensor]:
    """The prompts of a state as uint8 tensors. Raises `ValueError` for a state without learnt prompts."""
    if CONTEXT not in state.extras:
        raise ValueError(f"a class state of {state.adapter!r} holds no learnt prompts")
    packed = {PACKED: as_tensor(pack(state.extras[CONTEXT], bits))}
    if state.visual_prompts is not None:
        packed[PACKED_VISUAL] = as_tensor(pack(state.visual_prompts.tokens, bits))
    return packed


def packed_size(extras: Mapping[str, Tensor]) -> int:
    """Bytes of the packed prompts among the extras, headers included."""
    return sum(extras[name].numel() for name in (PACKED, PACKED_VISUAL) if name in extras)


def as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def unpacked(packed: Tensor) -> Tensor:
    """Prompts out of a uint8 tensor. Raises `StateError` for damaged bytes."""
    return unpack(packed.cpu().numpy().tobytes())


class _Given:
    """Stands in for a fit: what is served is a context that is there already."""

    def __init__(self, ctx: Tensor) -> None:
        self._ctx = ctx

    def __call__(self, ctx: Tensor) -> Tensor:
        return ctx

    def seal(self, ctx: Tensor) -> Tensor:
        return self._ctx.to(ctx.device)


def class_weights(host: Adapter, ctx: Tensor, labels: LabelSet, backbone: Backbone) -> Tensor:
    """Unit rows [C, D] that the host would serve with this context."""
    ctx = ctx.to(backbone.device)
    if isinstance(host, SelfTPT):
        untrained = SelfTPT(replace(host.settings, steps=0), backbone, lambda: _Given(ctx))
        return untrained.adapt(labels, backbone).weights
    if isinstance(host, MaPLe):
        return deep_prompts(labels, backbone, host.settings).rows(ctx)
    if isinstance(host, (CoOp, DAPT)):
        settings = host.settings.text if isinstance(host, DAPT) else host.settings
        prompts = PromptedClasses(
            backbone.text, labels, context=settings.context, position=settings.position, chunk=settings.chunk
        )
        return prompts.rows(ctx)
    raise ValueError(f"no class weights can be made of a context of {host.name!r}")


def stored_at(state: ClassState, host: Adapter, labels: LabelSet, backbone: Backbone, *, bits: int) -> ClassState:
    """The state as it comes back when its prompts were stored at `bits` bits each (1 to 8) and nothing else was: what
    a table of accuracy against bits is made of. `host` is the adapter that made the state."""
    packed = packed_extras(state, bits)
    ctx = unpacked(packed[PACKED])
    extras: dict[str, Tensor] = {**state.extras, **packed, CONTEXT: ctx}
    for name in (VISUAL_PROMPTS, VISUAL_PROMPTS_BEFORE_NORM):
        if name in extras:
            extras[name] = unpacked(packed[PACKED_VISUAL]).to(backbone.device)
    info = {**state.info, "bits": bits, "packed_bytes": packed_size(packed)}
    return replace(state, weights=class_weights(host, ctx, labels, backbone), extras=extras, info=info)
