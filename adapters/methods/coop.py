"""CoOp (arXiv 2109.01134): the words around the class names are learnt from a few labelled images by cross-entropy.

Tensor suffixes: N support images, B images of a step, C classes (c those of a step), D joint width, M context tokens,
W text width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import PLAIN, ClassState, ImageNeeds, LabelSet, Progress, Support
from adapters.calibration import calibration_version
from adapters.checkpoint import settings_version
from adapters.clip import Backbone
from adapters.errors import LabelSetError
from adapters.learning.class_texts import ticker
from adapters.learning.few_shot import Images, Learnt, SupportImages, fitted_state, plain_rows
from adapters.learning.fitting import checked_support, fit, minibatches
from adapters.learning.support_features import feature_ticks
from adapters.quantization.through import AsLearnt, Through
from adapters.ranges import check_ranges
from adapters.text.chunked import Tick, nothing
from adapters.text.layout import Position
from adapters.text.prompted_classes import PromptedClasses
from adapters.text.templates import CONTEXT_WORDS


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a step looks at: rows [c, D] of its ascending classes [c], features [B, D] and labels [B] of its images."""

    rows_cD: Tensor
    classes_c: Tensor
    features_BD: Tensor
    labels_B: Tensor


Penalty = Callable[[Seen], Tensor]
"""A term added to the cross-entropy."""

RANDOM_START = 0.02
"""Standard deviation of context that starts from no words (the paper's)."""

WARMUP = 0.1
"""Share of the steps in which the rate rises."""


@dataclass(frozen=True, slots=True)
class CoOpSettings:
    """The paper trains by SGD at 2e-3 for 50 to 200 passes over the images. Here the image features are made once, all
    images make a step, and AdamW takes far fewer of them. Defaults were chosen on support images of the bundled
    backbone; its text tower hardly reacts to a context that all classes share."""

    context: int = 4
    """Learnt tokens."""
    start: Literal["template", "source", "random"] = "template"
    """Words of the template next to the name, the backbone's source prompts (else the template), or noise. Tokens
    beyond the words are noise."""
    position: Position = "end"
    class_specific: bool = True
    """A context for each class (the paper's CSC) instead of one for all. Classes that come later get the mean."""
    steps: int = 60
    learning_rate: float = 2e-2
    weight_decay: float = 0.0
    anchor: float = 0.5
    """Weight of the pull of the class rows towards plain zero-shot (KgCoOp); 0 is CoOp as published."""
    views: int = 4
    """Random crops of each image beside the plain one."""
    batch: int = 512
    """Images of a step."""
    class_batch: int = 1000
    """Classes of a step; of larger label sets a step takes those of its images and a draw of the others."""
    chunk: int = 64
    """Prompts encoded with a graph at a time. Bounds the memory and the length of a slice."""
    heldout: float = 0.25
    """Share of the images of a class, at most four, that is kept apart to judge the fit."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self, context=(1, 64), steps=(0, 10_000), views=(0, 64), batch=(1, 2**16), class_batch=(2, 2**20),
            chunk=(1, 4096), seed=(0, 2**63 - 1), weight_decay=(0, 1), anchor=(0, 1000), heldout=(0, 0.9),
            learning_rate=(1e-9, 1),
        )  # fmt: skip


def start_context(backbone: Backbone, settings: CoOpSettings, classes: int) -> Tensor:
    """Context [M, W], or [C, M, W] where each class has its own."""
    text, generator = backbone.text, torch.Generator().manual_seed(settings.seed)
    ctx_MW = torch.randn(settings.context, text.width, generator=generator).mul(RANDOM_START).to(text.device)
    words_mW = _start_words(backbone, settings.start)[-settings.context :]
    place = 0 if settings.position == "front" else settings.context - len(words_mW)
    ctx_MW[place : place + len(words_mW)] = words_mW
    return ctx_MW.repeat(classes, 1, 1) if settings.class_specific else ctx_MW


def _start_words(backbone: Backbone, start: str) -> Tensor:
    if start == "random":
        return torch.empty(0, backbone.text.width, device=backbone.device)
    if start == "source" and backbone.source is not None:
        return backbone.source.ctx_MW.to(backbone.device)
    return backbone.text.embed_tokens(backbone.text.tokens(CONTEXT_WORDS))


def anchored(plain_CD: Tensor, weight: float) -> Penalty:
    """The mean squared distance of the class rows from those of plain zero-shot (KgCoOp, arXiv 2303.13283)."""

    def penalty(seen: Seen) -> Tensor:
        if weight == 0:
            return seen.rows_cD.new_zeros(())
        plain_cD = plain_CD[seen.classes_c.to(plain_CD.device)]
        return weight * (seen.rows_cD - plain_cD).square().sum(dim=-1).mean()

    return penalty


def fit_context(
    ctx: Tensor,
    prompts: PromptedClasses,
    images: Images,
    data: SupportImages,
    settings: CoOpSettings,
    *,
    logit_scale: float,
    through: Through | None = None,
    penalty: Penalty | None = None,
    visual: Sequence[dict[str, object]] = (),
    tick: Tick = nothing,
) -> list[float]:
    """Learns `ctx` in place and returns the losses. Cross-entropy over all classes of a step, whose prompts are encoded
    in chunks with exact gradients. `visual` are further parameter groups, behind `images`."""
    through = through or AsLearnt()
    sampler = torch.Generator().manual_seed(settings.seed)

    def step(rows_B: Tensor) -> float:
        labels_B = data.labels_N[rows_B]
        classes_c = step_classes(labels_B, prompts.classes, settings.class_batch, sampler)
        targets_B = torch.searchsorted(classes_c.to(labels_B.device), labels_B)
        features_BD = images(rows_B)

        def loss(rows_cD: Tensor) -> Tensor:
            entropy = F.cross_entropy(logit_scale * features_BD @ rows_cD.T, targets_B)
            return entropy + penalty(Seen(rows_cD, classes_c, features_BD, labels_B)) if penalty else entropy

        return prompts.backward(through(ctx), classes_c, loss, tick=tick)

    groups: list[dict[str, object]] = [{"params": [ctx.requires_grad_()]}, *visual]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    learnt = [p for group in optimizer.param_groups for p in group["params"]]
    batches = minibatches(data.split.train, settings.batch, seed=settings.seed)
    warmup = math.ceil(WARMUP * settings.steps)
    with torch.enable_grad():
        return fit(learnt, step, batches, steps=settings.steps, optimizer=optimizer, warmup=warmup, tick=tick)


def step_classes(labels_B: Tensor, classes: int, at_most: int, sampler: torch.Generator) -> Tensor:
    """The classes of a step, ascending: all, or those of its images filled up by a draw of the others."""
    if classes <= at_most:
        return torch.arange(classes)
    order_C = torch.randperm(classes, generator=sampler)
    present_C = torch.isin(order_C, labels_B.cpu())
    return torch.cat([order_C[present_C], order_C[~present_C]])[: max(at_most, int(present_C.sum()))].sort().values


def check_negatives(labels: LabelSet) -> None:
    """Raises `LabelSetError` for a single class: cross-entropy over one class is zero whatever the context."""
    if len(labels.classes) == 1:
        raise LabelSetError("this method tells classes from each other and needs at least two of them")


class CoOp:
    """One context per label set, learnt once; images then cost what plain zero-shot costs."""

    name = "coop"

    def __init__(self, settings: CoOpSettings, backbone: Backbone, through: Callable[[], Through] = AsLearnt) -> None:
        source = backbone.source.version if backbone.source and settings.start == "source" else "none"
        self.settings, self._through = settings, through
        self.version = settings_version(self.name, settings, source, calibration_version(backbone))

    def needs(self, state: ClassState) -> ImageNeeds:
        return PLAIN

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        started, settings, text = time.perf_counter(), self.settings, backbone.text
        text.check(labels)
        check_negatives(labels)
        support = checked_support(support, labels)
        prompts = PromptedClasses(
            text, labels, context=settings.context, position=settings.position, chunk=settings.chunk
        )
        tick = ticker(progress, fit_ticks(support, prompts, settings))
        data = SupportImages.of(
            support, backbone, views=settings.views, heldout=settings.heldout, seed=settings.seed, tick=tick
        )
        ctx, through = start_context(backbone, settings, prompts.classes), self._through()
        plain_CD = plain_rows(labels, backbone)
        losses = fit_context(
            ctx, prompts, data.drawn(settings.seed), data, settings, logit_scale=backbone.logit_scale,
            through=through, penalty=anchored(plain_CD, settings.anchor), tick=tick,
        )  # fmt: skip
        ctx = through.seal(ctx.detach())
        rows_CD, heldout_HD = prompts.rows(ctx, tick=tick), data.features_NVD[data.split.heldout, 0]
        learnt = Learnt(rows_CD, heldout_HD, losses, started)
        return fitted_state(self.name, self.version, learnt, data, backbone, plain_CD=plain_CD, extras={"context": ctx})

    def extend(self, state: ClassState, labels: LabelSet, backbone: Backbone) -> ClassState:
        """Other classes in the context that was learnt, without a fit."""
        return in_learnt_context(state, labels, backbone, self.settings)


def in_learnt_context(state: ClassState, labels: LabelSet, backbone: Backbone, settings: CoOpSettings) -> ClassState:
    """Any classes served by the context of a state. Where each class has learnt its own, others get their mean: what
    the contexts have in common, for nothing is known of the new ones."""
    backbone.text.check(labels)
    prompts = PromptedClasses(
        backbone.text, labels, context=settings.context, position=settings.position, chunk=settings.chunk
    )
    ctx = state.extras["context"].to(backbone.device)
    return replace(state, weights=prompts.rows(ctx.mean(dim=0) if settings.class_specific else ctx))


def fit_ticks(support: Support, prompts: PromptedClasses, settings: CoOpSettings) -> int:
    """About how often a fit ticks: features, steps, and the rows that are served."""
    serve = math.ceil(prompts.texts / settings.chunk)
    step = math.ceil(min(prompts.texts, settings.class_batch) / settings.chunk)
    step = 2 * step + 1 if step > 1 else 2
    return feature_ticks(len(support), settings.views) + settings.steps * step + serve
