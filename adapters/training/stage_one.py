"""Stage 1 of Self-TPT (arXiv 2408.05775): source prompts from labelled images, contrast between prompts, and gradient
matching. With both extra weights at zero this is CoOp (arXiv 2109.01134).

Tensor suffixes: C classes of a step, B images of a step, V views, D joint width, M context tokens, W text width.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from adapters.base import content_hash
from adapters.clip import Backbone
from adapters.evaluation.datasets import FeatureSet
from adapters.learning.losses import contrastive_prompt_loss, gradient_matching_loss, smoothed
from adapters.text.layout import POSITIONS
from adapters.text.prompt_views import Prompts, project
from adapters.text.templates import CONTEXT_WORDS, PLAIN_TEMPLATE
from adapters.training.stage_one_resume import keep, kept, moments, restore_moments

Report = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with the step, the number of steps, and the losses."""


@dataclass(frozen=True, slots=True)
class StageOneSettings:
    """The paper leaves these open; chosen on development sets (docs/experiments.md)."""

    steps: int = 150
    classes_per_step: int = 64
    images_per_class: int = 4
    learning_rate: float = 2e-3
    contrast_weight: float = 1.0
    matching_weight: float = 1.0
    decay: float = 0.9
    """Of the gradients' moving average in gradient matching."""
    temperature: float = 0.1
    projected_width: int = 128
    seed: int = 0


def crc(tensor: Tensor) -> int:
    return zlib.crc32(tensor.cpu().contiguous().numpy().tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one step sees: class rows [C], image features [B, D] and their place among the classes [B]."""

    rows_C: Tensor
    images_BD: Tensor
    targets_B: Tensor


class StageOne:
    """Context and projection head in training, with what each step draws from."""

    def __init__(self, backbone: Backbone, data: FeatureSet, settings: StageOneSettings) -> None:
        text = backbone.text
        self.settings = settings
        self.done = 0
        self._data = data
        self._scale = backbone.logit_scale
        self._generator = torch.Generator().manual_seed(settings.seed)
        start_MW = text.embed_tokens(text.tokens(CONTEXT_WORDS))
        jitter = torch.randn(start_MW.shape, generator=self._generator).to(start_MW.device)
        self.ctx_MW = (start_MW + 0.02 * start_MW.std() * jitter).requires_grad_()
        bound = 1 / math.sqrt(backbone.embed_dim)
        shape = (settings.projected_width, backbone.embed_dim)
        head = (torch.rand(shape, generator=self._generator) * 2 - 1) * bound
        self.head_PD = head.to(text.device).requires_grad_()
        self._prompts = Prompts(text, data.classes, context=len(start_MW))
        self._hand_CD = text.encode_texts([PLAIN_TEMPLATE.replace("{}", name) for name in data.classes])
        self._optimizer = torch.optim.AdamW([self.ctx_MW, self.head_PD], lr=settings.learning_rate, weight_decay=0.0)
        self._memory: list[Tensor | None] = [None, None]
        seen = {"classes": data.classes, "labels": crc(data.labels_N), "features": crc(data.features_ND)}
        self._key = content_hash({"backbone": backbone.fingerprint, "settings": asdict(settings), **seen})

    def run(self, report: Report | None = None, *, file: Path | None = None, every: int = 25) -> None:
        """To the last step, from where `file` says that an equal run broke off; it is written each `every` steps.
        Attention runs on the math kernel, the only one with second derivatives."""
        if file is not None:
            self._resume(file)
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            for step in self._steps():
                for group in self._optimizer.param_groups:
                    group["lr"] = self.settings.learning_rate * self._cosine(self.done)
                losses = self._step(step)
                nn.utils.clip_grad_norm_([self.ctx_MW, self.head_PD], 10.0)
                self._optimizer.step()
                self.done += 1
                if file is not None and (self.done % every == 0 or self.done == self.settings.steps):
                    keep(file, self._state(), self._key)
                if report is not None:
                    report(self.done, self.settings.steps, losses)

    @property
    def _learnt(self) -> dict[str, Tensor]:
        return {"ctx": self.ctx_MW, "head": self.head_PD}

    def _state(self) -> dict[str, Tensor]:
        memory = {f"memory.{place}": m for place, m in enumerate(self._memory) if m is not None}
        learnt = {name: parameter.detach() for name, parameter in self._learnt.items()}
        counters = {"done": torch.tensor(self.done), "generator": self._generator.get_state()}
        return {**learnt, **moments(self._optimizer, self._learnt), **memory, **counters}

    def _resume(self, file: Path) -> None:
        state = kept(file, self._key)
        if state is None:
            return
        with torch.no_grad():
            for name, parameter in self._learnt.items():
                parameter.copy_(state[name])
        restore_moments(self._optimizer, self._learnt, state)
        self._memory = [state[f"memory.{k}"].to(self.ctx_MW.device) if f"memory.{k}" in state else None for k in (0, 1)]
        self.done = int(state["done"])
        self._generator.set_state(state["generator"])

    def _step(self, step: Step) -> dict[str, float]:
        settings = self.settings
        layout = self._prompts.batch(step.rows_C)
        learnt_VCD = self._prompts.encode(self.ctx_MW, layout, slice(None)).view(len(POSITIONS), len(step.rows_C), -1)
        ce = F.cross_entropy(self._scale * step.images_BD @ learnt_VCD[-1].T, step.targets_B)
        total, told = ce, {"ce": ce.item()}
        if settings.contrast_weight > 0:
            views_VCD = torch.cat([learnt_VCD, self._hand_CD[step.rows_C][None]])
            contrast = contrastive_prompt_loss(
                project(views_VCD, {"weight": self.head_PD}), temperature=settings.temperature
            )
            total = total + settings.contrast_weight * contrast
            told["contrast"] = contrast.item()
            if settings.matching_weight > 0:
                matching = self._matching(ce, contrast)
                total = total + settings.matching_weight * matching
                told["matching"] = matching.item()
        self._optimizer.zero_grad()
        total.backward()
        return told

    def _matching(self, ce: Tensor, contrast: Tensor) -> Tensor:
        """1 - cosine of both losses' smoothed gradients with respect to the context; keeps the graph of the present."""
        gradients = []
        for place, loss in enumerate((ce, contrast)):
            (gradient,) = torch.autograd.grad(loss, [self.ctx_MW], create_graph=True)
            gradient = smoothed(gradient, self._memory[place], decay=self.settings.decay)
            self._memory[place] = gradient.detach()
            gradients.append([gradient])
        return gradient_matching_loss(*gradients)

    def _steps(self) -> Iterator[Step]:
        labels = self._data.labels_N
        by_class = [torch.nonzero(labels == row).flatten() for row in range(len(self._data.classes))]
        device = self.ctx_MW.device
        count = min(self.settings.classes_per_step, len(by_class))
        while self.done < self.settings.steps:
            rows_C = torch.randperm(len(by_class), generator=self._generator)[:count]
            picks = [self._pick(by_class[int(row)]) for row in rows_C]
            targets_B = torch.cat([torch.full((len(pick),), place) for place, pick in enumerate(picks)])
            images_BD = self._data.features_ND[torch.cat(picks)]
            yield Step(rows_C, images_BD.to(device), targets_B.to(device))

    def _pick(self, images: Tensor) -> Tensor:
        return images[torch.randperm(len(images), generator=self._generator)[: self.settings.images_per_class]]

    def _cosine(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(step / max(self.settings.steps, 1), 1)))
