"""Fits a token head to a frozen backbone: losses, steps, resumption.

Tensor suffixes: B images, T tokens, V token width, F map channels, C class names, K texts, D joint width.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.training.optimize import schedule
from adapters.training.token_head_data import Batch, MapEnd, SourceImages
from adapters.vision.sequence import run
from adapters.vision.token_head import HeadShape, TokenHead

logger = logging.getLogger(__name__)

SNAPSHOT_EVERY = 50


@dataclass(frozen=True)
class Recipe:
    """How the head is trained. `alone` is the share of images whose plain features are withheld; `kept` that of the
    map positions a step looks at; the rest are weights of the losses."""

    steps: int = 1000
    batch: int = 96
    rate: float = 1.5e-3
    warm_up: int = 60
    weight_decay: float = 0.05
    alone: float = 0.5
    kept: float = 0.6
    label: float = 0.5
    answers: float = 1.0
    direction: float = 2.0
    caption: float = 0.2
    bank: int = 512
    seed: int = 0


def embed(head: TokenHead, maps_BFHW: Tensor, plain_BD: Tensor, positions: Tensor | None = None) -> Tensor:
    """Unit features [B, D] of the token path; `positions` are the only rows of the sequence that it sees."""
    with torch.autocast("cpu", torch.bfloat16):
        x_BTV = head.embed(maps_BFHW)
        if positions is not None:
            x_BTV = x_BTV[:, positions]
        said_BD = head.read(run(x_BTV, None, norm=head.norm_pre, blocks=head.blocks))
    return F.normalize(head.shape.base_weight * plain_BD + said_BD.float(), dim=-1)


class Lesson:
    """The loss of a batch of these images; `scale` is the backbone's factor from cosine to logit."""

    def __init__(self, images: SourceImages, scale: float, recipe: Recipe) -> None:
        self.images, self.recipe, self._scale = images, recipe, scale

    def loss(self, head: TokenHead, batch: Batch, generator: torch.Generator) -> Tensor:
        recipe = self.recipe
        with_plain = torch.rand(len(batch.plain), 1, generator=generator) >= recipe.alone
        maps = batch.maps.flip(-1) if torch.rand((), generator=generator) < 0.5 else batch.maps
        count = maps.shape[2] * maps.shape[3]
        seen = torch.randperm(count, generator=generator)[: max(1, round(recipe.kept * count))]
        positions = torch.cat([torch.zeros(1, dtype=torch.long), 1 + seen])
        found_BD = embed(head, maps, batch.plain * with_plain, positions)
        total = recipe.direction * (1 - (found_BD * batch.plain).sum(-1)).mean()
        total = total + recipe.answers * self._answers(found_BD, batch.plain, generator)
        total = total + recipe.label * self._label(found_BD, batch)
        return total + recipe.caption * self._caption(found_BD, batch)

    def _answers(self, found_BD: Tensor, plain_BD: Tensor, generator: torch.Generator) -> Tensor:
        """Divergence from the plain path's answers over class names and some captions."""
        drawn = torch.randperm(len(self.images.caption_texts), generator=generator)[: self.recipe.bank]
        bank_KD = torch.cat([self.images.class_texts, self.images.caption_texts[drawn]])
        told, said = (self._scale * features @ bank_KD.T for features in (plain_BD, found_BD))
        return F.kl_div(said.log_softmax(-1), told.log_softmax(-1), log_target=True, reduction="batchmean")

    def _label(self, found_BD: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy among the class names of each image's own set."""
        known = batch.classes >= 0
        logits_BC = self._scale * found_BD[known] @ self.images.class_texts.T
        rows_C = torch.arange(logits_BC.shape[1])
        start_B1, stop_B1 = batch.ranges[known].split(1, dim=1)
        logits_BC = logits_BC.masked_fill((rows_C < start_B1) | (rows_C >= stop_B1), float("-inf"))
        return F.cross_entropy(logits_BC, batch.classes[known], reduction="sum") / len(found_BD)

    def _caption(self, found_BD: Tensor, batch: Batch) -> Tensor:
        """Each photograph finds its caption among those of the batch, and is found by it."""
        told = batch.captions >= 0
        if not told.any():
            return found_BD.new_zeros(())
        logits = self._scale * found_BD[told] @ self.images.caption_texts[batch.captions[told]].T
        own = torch.arange(len(logits))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def train(lesson: Lesson, end: MapEnd, shape: HeadShape, snapshot: Path) -> TokenHead:
    """A trained head. Takes up where `snapshot` left off; every step draws from its own seed."""
    recipe, images = lesson.recipe, lesson.images
    torch.manual_seed(recipe.seed)
    head = TokenHead(shape)
    matrices = [p for p in head.parameters() if p.ndim > 1]
    others = [p for p in head.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.rate, betas=(0.9, 0.98),
    )  # fmt: skip
    first = _resume(snapshot, head, optimizer)
    per_epoch, started = max(1, len(images) // recipe.batch), time.process_time()
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * schedule(step, recipe.steps, recipe.warm_up)
        epoch, place = divmod(step, per_epoch)
        drawn = images.order(epoch, recipe.seed)[place * recipe.batch : (place + 1) * recipe.batch]
        loss = lesson.loss(head, images.batch(drawn, end), torch.Generator().manual_seed(recipe.seed * 10**6 + step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % SNAPSHOT_EVERY == 0:
            torch.save({"step": step + 1, "head": head.state_dict(), "optimizer": optimizer.state_dict()}, snapshot)
            logger.info("step %d: loss %.3f, %.0f CPU s", step + 1, loss.item(), time.process_time() - started)
    return head.eval()


def _resume(snapshot: Path, head: TokenHead, optimizer: torch.optim.Optimizer) -> int:
    if not snapshot.exists():
        return 0
    record = torch.load(snapshot, weights_only=True)
    head.load_state_dict(record["head"])
    optimizer.load_state_dict(record["optimizer"])
    return int(record["step"])
