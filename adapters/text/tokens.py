"""Texts to token ids, in memory that does not grow with every new word. Knows no model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

WORDS = 1 << 15
"""Words that open_clip's tokenizer may remember, about 5 MiB; it would keep every word it ever saw."""

NAMES = 1 << 14
"""Names whose token ids are remembered, about 3 MiB: one label set asks for them several times."""

AT_ONCE = 256
"""Texts tokenized before others get their turn: about 10 ms."""


class Tokens:
    """open_clip's tokenizer for several threads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._names: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def of(self, text: str) -> list[int]:
        """Token ids of a piece of text without start and end marks."""
        with self._lock:
            known = self._names.get(text)
            if known is None:
                known = tuple(self._tokenizer.encode(text))
                self._bound()
                self._names[text] = known
        return list(known)

    def matrices(self, texts: Sequence[str]) -> Iterator[Tensor]:
        """Whole texts with their marks, as open_clip pads and cuts them: ids [n, context length], n at a time."""
        for start in range(0, len(texts), AT_ONCE):
            with self._lock:
                ids_nL: Tensor = self._tokenizer(list(texts[start : start + AT_ONCE]))
                self._bound()
            yield ids_nL if isinstance(ids_nL, Tensor) else torch.as_tensor(ids_nL)

    def _bound(self) -> None:
        if len(self._names) >= NAMES:
            self._names.clear()
        words = getattr(self._tokenizer, "cache", None)
        if isinstance(words, dict) and len(words) > WORDS:
            marks = [self._tokenizer.decoder[one] for one in self._tokenizer.all_special_ids]
            words.clear()
            words.update({mark: mark for mark in marks})  # the tokenizer tells its marks from words by these entries
