"""How TGP-T learns (arXiv 2312.06401): its texts as targets, its losses, and the choice of the best network on held-out
images.

Tensor suffixes: B images, N support images, C classes, Q queries, T tokens, D joint width, W text width, X vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import clean_text
from adapters.clip import Backbone
from adapters.learning.bonder import TextGuide
from adapters.learning.token_cache import IMAGES_AT_ONCE, TokenCache
from adapters.text.chunked import Tick
from adapters.text.tower import TextTower

NO_TARGET = -1
SMOOTHING = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a fit learns from: image tokens, labels, and the token ids that each query is to decode to, `NO_TARGET`
    where there is none: [C, Q] for the category-wise bank, [N, Q] for the content-wise one."""

    cache: TokenCache
    labels_N: Tensor
    category_CQ: Tensor
    content_NQ: Tensor


def targets(texts: Sequence[str | None], text: TextTower, queries: int) -> Tensor:
    """Token ids [n, queries] of the texts up to and with end-of-text, cut where the queries end."""
    rows = torch.full((len(texts), queries), NO_TARGET)
    for row, entry in enumerate(texts):
        if entry and clean_text(entry):
            ids = [*text.tokens(entry), text.eot][:queries]
            rows[row, : len(ids)] = torch.tensor(ids)
    return rows


def token_loss(prompts_BQW: Tensor, targets_BQ: Tensor, table_XW: Tensor) -> Tensor:
    """Smoothed cross-entropy of decoding each prompt vector with the frozen token embeddings, over the places that have
    a target; 0 without any. Query i is to give token i: nothing is shifted."""
    there_BQ = targets_BQ != NO_TARGET
    if not bool(there_BQ.any()):
        return prompts_BQW.new_zeros(())
    logits = (prompts_BQW[there_BQ].to(table_XW.dtype) @ table_XW.T).float()
    return F.cross_entropy(logits, targets_BQ[there_BQ], label_smoothing=SMOOTHING)


def lesson_loss(guide: TextGuide, lesson: Lesson, rows_B: Tensor, views_B: Tensor, backbone: Backbone) -> Tensor:
    """Class, category-wise and content-wise cross-entropy, each with weight 1. Scores have the backbone's scale."""
    tokens_BTD, features_BD = lesson.cache.of(rows_B, views_B)
    labels_B = lesson.labels_N[rows_B]
    category, content = guide.prompts(tokens_BTD)
    scores_BC = backbone.logit_scale * guide.head(guide.fused(features_BD, (category, content), backbone.text))
    table_XW = backbone.text.token_embeddings
    return (
        F.cross_entropy(scores_BC, labels_B)
        + token_loss(category, lesson.category_CQ[labels_B], table_XW)
        + token_loss(content, lesson.content_NQ[rows_B], table_XW)
    )


@torch.no_grad()
def image_scores(guide: TextGuide, tokens_BTD: Tensor, features_BD: Tensor, text: TextTower) -> Tensor:
    """What a logit scale turns into logits: cosines [B, C], times the learnt lengths of the head's rows."""
    scores_BC: Tensor = guide.head(guide.fused(features_BD, guide.prompts(tokens_BTD), text))
    return scores_BC


class Judge:
    """Looks at the held-out images now and then and remembers the network that did best."""

    def __init__(self, guide: TextGuide, lesson: Lesson, rows: Tensor, backbone: Backbone, tick: Tick) -> None:
        self._guide, self._lesson, self._rows, self._tick = guide, lesson, rows, tick
        self.backbone = backbone
        self.best: tuple[float, float] | None = None
        self._kept: dict[str, Tensor] = {}

    def scores(self) -> tuple[Tensor, Tensor]:
        """Of the held-out images without a scale [n, C], and their labels."""
        scores = []
        for rows in self._rows.split(IMAGES_AT_ONCE):
            tokens, features = self._lesson.cache.of(rows, torch.zeros_like(rows))
            scores.append(image_scores(self._guide, tokens, features, self.backbone.text))
            self._tick()
        return torch.cat(scores), self._lesson.labels_N[self._rows]

    def look(self) -> tuple[float, float]:
        """Share of correct answers, and minus their cross-entropy to tell ties apart."""
        scores_nC, labels_n = self.scores()
        right = (scores_nC.argmax(dim=-1) == labels_n).float().mean()
        return right.item(), -F.cross_entropy(self.backbone.logit_scale * scores_nC, labels_n).item()

    def plain(self, weights_CD: Tensor) -> Tensor:
        """Scores [n, C] of fixed class weights."""
        return self._lesson.cache.features_NVD[self._rows, 0] @ weights_CD.T

    def consider(self) -> None:
        if not len(self._rows):
            return
        found = self.look()
        if self.best is None or found > self.best:
            self.best = found
            self._kept = {key: value.clone() for key, value in self._guide.state_dict().items()}

    def restore(self) -> None:
        """Takes the network back to its best look, if there was one."""
        if self._kept:
            self._guide.load_state_dict(self._kept)
