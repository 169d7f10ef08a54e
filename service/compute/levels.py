"""Which of the longer jobs goes first on the device; images go before all of them (`service.compute.batcher`)."""

from __future__ import annotations

from adapters.base import Adapter, LabelSet, Support

SMALL_LABEL_SET = 128
"""Up to so many classes an adaptation goes before larger ones."""

FALLBACK_LEVEL, SMALL_LEVEL, LARGE_LEVEL = 1, 2, 3


def level_of(labels: LabelSet, adapter: Adapter, support: Support | None = None) -> int:
    """Of one adaptation. Fits take longest and go last."""
    if adapter.name == "zero-shot":
        return FALLBACK_LEVEL
    return SMALL_LEVEL if support is None and len(labels.classes) <= SMALL_LABEL_SET else LARGE_LEVEL
