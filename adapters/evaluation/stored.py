"""Rows of a table whose prompts went through storage at a few bits each: `coop@4` is coop, stored at 4 bits."""

from __future__ import annotations

import zlib
from collections.abc import Hashable
from dataclasses import dataclass, field

from adapters.base import Adapter, ClassState, ImageNeeds, LabelSet, Progress, Support, content_hash
from adapters.clip import Backbone
from adapters.errors import OptionError
from adapters.evaluation.variants import Variant
from adapters.quantization.stored_prompts import stored_at

Memo = dict[Hashable, ClassState]
"""States as they were fitted, so that a fit is shared by all numbers of bits."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A method whose learnt prompts are packed after the fit and served from what comes back."""

    member: Variant
    bits: int
    memo: Memo = field(compare=False)

    @property
    def label(self) -> str:
        return f"{self.member.label}@{self.bits}"

    @property
    def learns_from_images(self) -> bool:
        return self.member.learns_from_images

    @property
    def open_set(self) -> bool:
        return self.member.open_set

    @property
    def seeded(self) -> bool:
        return self.member.seeded

    def adapter(self, backbone: Backbone, seed: int) -> Adapter:
        return StoredAdapter(self.member.adapter(backbone, seed), self.bits, self.memo)


class StoredAdapter:
    """Fits its host once for all numbers of bits."""

    def __init__(self, host: Adapter, bits: int, memo: Memo) -> None:
        self.name = host.name
        self.version = content_hash(["stored", host.version, bits])[:16]
        self.host, self._bits, self._memo = host, bits, memo

    def needs(self, state: ClassState) -> ImageNeeds:
        return self.host.needs(state)

    def adapt(
        self, labels: LabelSet, backbone: Backbone, support: Support | None = None, progress: Progress | None = None
    ) -> ClassState:
        """Raises `OptionError` for a method that learns no prompts which can be stored."""
        seen = 0 if support is None else zlib.crc32(support.pixels.numpy().tobytes())
        key = (self.host.version, labels.id, seen)
        if key not in self._memo:
            self._memo[key] = self.host.adapt(labels, backbone, support, progress)
        try:
            return stored_at(self._memo[key], self.host, labels, backbone, bits=self._bits)
        except ValueError as error:
            raise OptionError(str(error), field="methods") from error
