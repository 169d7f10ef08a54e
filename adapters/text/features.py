"""Text features that label sets share, by content: least recently used leave first, bounded by bytes. Runs no model."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ENTRY = 256
"""Bytes that an entry takes beside its numbers."""


class TextFeatures:
    """Rows [D] that depend on one text and the backbone alone. Used on one thread."""

    def __init__(
        self, max_bytes: int, *, fingerprint: str, looked_up: Callable[[int, int], None] | None = None
    ) -> None:
        """`fingerprint` of the backbone, and of whatever else decides what a text's row is, is part of every key.
        `looked_up` is told how many texts were found and how many were not."""
        self._max_bytes = max_bytes
        self._fingerprint = fingerprint
        self._rows: OrderedDict[bytes, Tensor] = OrderedDict()
        self.nbytes = 0
        self._looked_up = looked_up
        self.hits = 0

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self, kind: Sequence[str], texts: Sequence[str]) -> list[bytes]:
        """Content hashes of texts that are treated as `kind` says."""
        base = hashlib.blake2b("\0".join((self._fingerprint, *kind)).encode("utf-8", "surrogatepass"), digest_size=16)
        keys = []
        for text in texts:
            digest = base.copy()
            digest.update(b"\0\0" + text.encode("utf-8", "surrogatepass"))
            keys.append(digest.digest())
        return keys

    def rows(self, kind: Sequence[str], texts: Sequence[str], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """Rows [N, D] of the texts, on the CPU. `compute` makes those of the places it is given, each distinct text
        once."""
        keys = self.keys(kind, texts)
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        found = {key: row for key in first if (row := self._get(key)) is not None}
        self.hits += len(found)
        missing = [key for key in first if key not in found]
        if self._looked_up is not None:
            self._looked_up(len(found), len(missing))
        if missing:
            computed = compute([first[key] for key in missing]).detach().cpu()
            self._put(missing, computed)
            found.update(zip(missing, computed, strict=True))
        return torch.stack([found[key] for key in keys])

    def _get(self, key: bytes) -> Tensor | None:
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def _put(self, keys: Sequence[bytes], rows_nD: Tensor) -> None:
        """What would push everything else out and not fit itself is not kept."""
        each = rows_nD.shape[1] * rows_nD.element_size() + ENTRY
        if len(keys) * each > self._max_bytes:
            return
        for key, row in zip(keys, rows_nD.split(1), strict=True):
            self._rows[key] = row[0].clone()  # a row of its own: a view would hold the whole matrix
            self.nbytes += each
        while self.nbytes > self._max_bytes:
            _, row = self._rows.popitem(last=False)
            self.nbytes -= row.numel() * row.element_size() + ENTRY
