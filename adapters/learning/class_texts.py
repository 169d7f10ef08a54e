"""What the methods do alike: which texts stand for a class, how their features become one row, how progress is told.

Tensor suffixes: N texts, C classes, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import LabelSet, Progress
from adapters.text.chunked import Tick
from adapters.text.templates import BACKGROUND_TEXTS
from adapters.text.tower import TextTower


@dataclass(frozen=True, slots=True)
class OwnedTexts:
    """Texts, and the class row each belongs to."""

    texts: tuple[str, ...]
    owners: tuple[int, ...]

    def mean_rows(self, features_ND: Tensor, classes: int) -> Tensor:
        """Unit mean [classes, D] of the features of each class; zero rows for classes without a text."""
        if self.owners == tuple(range(classes)):
            return F.normalize(features_ND, dim=-1)
        owners_N = torch.tensor(self.owners, device=features_ND.device)
        sums_CD = features_ND.new_zeros(classes, features_ND.shape[-1]).index_add_(0, owners_N, features_ND)
        return F.normalize(sums_CD, dim=-1)


def named_texts(labels: LabelSet) -> OwnedTexts:
    """Every name followed by its aliases, in label order."""
    pairs = [(text, row) for row, entry in enumerate(labels.classes) for text in (entry.name, *entry.aliases)]
    return OwnedTexts(tuple(text for text, _ in pairs), tuple(row for _, row in pairs))


def templated(named: OwnedTexts, templates: Sequence[str]) -> OwnedTexts:
    """Every named text in every template."""
    texts = tuple(template.replace("{}", text) for text in named.texts for template in templates)
    return OwnedTexts(texts, tuple(row for row in named.owners for _ in templates))


def blend_descriptions(weights_CD: Tensor, labels: LabelSet, text: TextTower, tick: Tick) -> Tensor:
    """Classes with descriptions become the unit mean of their prompts' row and their descriptions' row."""
    pairs = [(text, row) for row, entry in enumerate(labels.classes) for text in entry.descriptions]
    if not pairs:
        return weights_CD
    described = OwnedTexts(tuple(t for t, _ in pairs), tuple(row for _, row in pairs))
    features_ND = text.encode_texts(described.texts, tick=tick)
    return F.normalize(weights_CD + described.mean_rows(features_ND, len(labels.classes)), dim=-1)


def background_row(text: TextTower) -> Tensor:
    """Unit mean [D] of texts about no class in particular."""
    return F.normalize(text.encode_texts(BACKGROUND_TEXTS).mean(dim=0), dim=-1)


def ticker(progress: Progress | None, total: int) -> Callable[[], None]:
    """A tick that reports the fraction done of about `total` ticks; it stays below 1 until the caller is through."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done / max(total, 1), 0.99))

    return tick
