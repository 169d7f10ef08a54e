"""Whether the texts of a label set fit the context of a text tower. Runs no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adapters.base import LabelSet
from adapters.errors import LabelSetError
from adapters.text.chunked import Tick

PROMPT_RESERVE = 12
"""Tokens kept free around a class name: start, end, and the longest hand-written template in use."""

TICK_EVERY = 256
"""Classes whose tokens are counted between two ticks: about 10 ms."""


def check_texts(
    labels: LabelSet, tokens: Callable[[str], Sequence[int]], *, specials: set[int], context: int, tick: Tick
) -> None:
    """Raises `LabelSetError` that names the place of the first text that does not fit."""
    longest = 0
    for index, entry in enumerate(labels.classes):
        for text in (entry.name, *entry.aliases):
            ids = tokens(text)
            longest = max(longest, len(ids))
            _check_ids(ids, specials, limit=context - PROMPT_RESERVE, text=text, field=f"classes[{index}].name")
        for text in entry.descriptions:
            _check_ids(tokens(text), specials, limit=context - 2, text=text, field=f"classes[{index}].descriptions")
        if index % TICK_EVERY == TICK_EVERY - 1:
            tick()
    for index, template in enumerate(labels.templates):
        ids = tokens(template.replace("{}", "x"))
        _check_ids(ids, specials, limit=context - 2 - longest + 1, text=template, field=f"templates[{index}]")


def _check_ids(ids: Sequence[int], specials: set[int], *, limit: int, text: str, field: str) -> None:
    shown = text if len(text) <= 60 else text[:57] + "..."
    if not ids:
        raise LabelSetError(f"{shown!r} has no tokens that the backbone knows", field=field)
    if specials.intersection(ids):
        raise LabelSetError(f"{shown!r} contains a control token of the tokenizer", field=field)
    if len(ids) > limit:
        raise LabelSetError(f"{shown!r} has {len(ids)} tokens; at most {limit} fit the backbone's context", field=field)
