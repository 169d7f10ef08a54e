"""Other classes served by what a fit has learnt: their names are encoded in the learnt context, nothing is fitted.

Tensor suffixes: N texts, C classes, D joint width, J layers, M context tokens, W text width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from adapters.base import VISUAL_PROMPTS_BEFORE_NORM, Adapter, ClassState, LabelSet
from adapters.clip import Backbone
from adapters.errors import OptionError
from adapters.evaluation.stored import StoredAdapter
from adapters.evaluation.variants import EnsembleAdapter
from adapters.learning.class_texts import blend_descriptions, named_texts
from adapters.quantization.stored_prompts import CONTEXT, PACKED, unpacked
from adapters.text.chunked import encode_rows
from adapters.text.layout import Position, lay_out

CHUNK = 64


@runtime_checkable
class Extending(Protocol):
    """An adapter that knows itself how to serve other classes."""

    def extend(self, state: ClassState, labels: LabelSet, backbone: Backbone) -> ClassState: ...


def served_elsewhere(adapter: Adapter, state: ClassState, labels: LabelSet, backbone: Backbone) -> ClassState:
    """The class state of other names. Raises `OptionError` if the method leaves no context to encode them in."""
    if isinstance(adapter, StoredAdapter):
        return served_elsewhere(adapter.host, state, labels, backbone)
    if isinstance(adapter, Extending):
        return adapter.extend(state, labels, backbone)
    if isinstance(adapter, EnsembleAdapter):
        return adapter.served(state, labels, lambda member, own: served_elsewhere(member, own, labels, backbone))
    if CONTEXT not in state.extras and PACKED not in state.extras:
        raise OptionError(f"{adapter.name} leaves no context that other classes could be encoded in", field="methods")
    return _in_context(adapter, state, labels, backbone)


def _in_context(adapter: Adapter, state: ClassState, labels: LabelSet, backbone: Backbone) -> ClassState:
    text = backbone.text
    text.check(labels)
    ctx_MW, deep_JMW = _contexts(adapter, state, backbone)
    position: Position = getattr(getattr(adapter, "settings", None), "position", "end")
    named = named_texts(labels)
    names, stop = [text.tokens(name) for name in named.texts], text.tokens(".")
    layout = lay_out(names, context=len(ctx_MW), position=position, stop=stop, sot=text.sot, eot=text.eot)

    def encode(part: slice) -> Tensor:
        return text.encode_prompts(ctx_MW, layout.rows(part), deep_IMW=deep_JMW)

    rows_ND = encode_rows(encode, len(layout), chunk=CHUNK)
    weights_CD = named.mean_rows(rows_ND, len(labels.classes))
    return replace(state, weights=blend_descriptions(weights_CD, labels, text, lambda: None))


def _contexts(adapter: Adapter, state: ClassState, backbone: Backbone) -> tuple[Tensor, Tensor | None]:
    """Context [M, W] before the names, and for methods that prompt both towers also what enters the later blocks."""
    ctx = state.extras[CONTEXT] if CONTEXT in state.extras else unpacked(state.extras[PACKED])
    ctx = ctx.to(backbone.text.device)
    if ctx.ndim == 2:
        return ctx, None
    if VISUAL_PROMPTS_BEFORE_NORM in state.extras:
        return ctx[0], ctx[1:]
    raise OptionError(
        f"{adapter.name} learnt a context for each class of its own: none is left for others", field="methods"
    )
