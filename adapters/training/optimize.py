"""Optimisation shared by both phases: dense weights with AdamW, the token table with sparse Adam, one schedule."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from open_clip import CLIP
from torch import Tensor, nn

from adapters.training.tower import encode_continued, encode_text

WEIGHT_DECAY = 0.05
CLIP_NORM = 1.0
BUCKETS = 4


class TowerOptimizer:
    """Trains everything but the trunk; a step touches only those rows of the token table that its batch used."""

    def __init__(
        self, model: CLIP, steps: int, rates: dict[str, float], warm_up: int, extra: Sequence[nn.Parameter] = ()
    ) -> None:
        """`rates`: learning rates of `text`, `table`, `projection` and `scale`; a missing group stays fixed."""
        groups: dict[str, list[nn.Parameter]] = {"text": [], "projection": [], "scale": list(extra)}
        for name, parameter in model.named_parameters():
            if name.startswith("visual.head"):
                groups["projection"].append(parameter)
            elif not name.startswith(("visual.", "token_embedding", "logit_scale")):
                groups["text"].append(parameter)
        self._dense = [parameter for name in rates if name != "table" for parameter in groups[name]]
        options: list[dict[str, Any]] = []
        for name, rate in rates.items():
            for decays in (True, False):
                chosen = [p for p in groups.get(name, []) if (p.ndim > 1) == decays]
                if chosen:
                    options.append({"params": chosen, "lr": rate, "weight_decay": WEIGHT_DECAY if decays else 0.0})
        self._optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(options, betas=(0.9, 0.98), fused=True)]
        table = model.token_embedding.weight
        self._optimizers.append(torch.optim.SparseAdam([table], lr=rates["table"], betas=(0.9, 0.98)))
        self._schedulers = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps, warm_up))
            for optimizer in self._optimizers
        ]

    def step(self, loss: Tensor) -> None:
        """One update of all groups."""
        loss.backward()
        nn.utils.clip_grad_norm_(self._dense, CLIP_NORM)
        for optimizer, scheduler in zip(self._optimizers, self._schedulers, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scheduler.step()


def schedule(step: int, steps: int, warm_up: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))


class AveragedWeights:
    """Exponential moving average of the trained weights; the window grows with the steps up to 1 / (1 - decay)."""

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self._decay = decay
        self._steps = 0
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters() if not n.startswith("visual.trunk")}

    @torch.no_grad()
    def update(self, model: nn.Module, every: int = 10) -> None:
        """Take in the current weights; only each tenth call does, for the token table is large."""
        self._steps += 1
        if self._steps % every:
            return
        keep = min(self._decay**every, self._steps / (self._steps + 10 * every))
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter, 1 - keep)

    def copy_to(self, model: nn.Module) -> None:
        """Replace the model's weights by the average."""
        model.load_state_dict(self.weights, strict=False)


def encode_bucketed(model: CLIP, tokens_BL: Tensor, shared: int = 0) -> Tensor:
    """Text features [B, D] of prompts of mixed length, encoded in groups of like length.

    `shared` is the number of first tokens that all prompts have in common, where that is known.
    """
    order = tokens_BL.argmax(-1).argsort()
    parts = [tokens_BL[part] for part in order.tensor_split(BUCKETS) if len(part)]
    encoded = [encode_continued(model, shared, part) if shared else encode_text(model, part) for part in parts]
    return torch.cat(encoded)[order.argsort()]
