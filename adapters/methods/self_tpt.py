"""Self-TPT (arXiv 2408.05775), stages 2 and 3: adapt the context to a label set by its names alone, then make the class
weights. Stage 1, which makes the source prompts, is `adapters.training.source_prompts`.

Tensor suffixes: C classes, N texts, D joint width, M context tokens, W text width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import PLAIN, ClassState, ImageNeeds, InfoValue, LabelSet, Progress, Support
from adapters.calibration import calibration_version, served_scale
from adapters.checkpoint import settings_version
from adapters.clip import Backbone, ensemble_templates
from adapters.errors import AdaptationDiverged
from adapters.learning.class_texts import (
    OwnedTexts,
    background_row,
    blend_descriptions,
    named_texts,
    ticker,
)
from adapters.learning.directions import without_common, without_direction
from adapters.learning.losses import contrastive_prompt_loss, inter_dispersion_loss
from adapters.quantization.through import AsLearnt, Through
from adapters.text.chunked import Tick, backward_rows, sum_rows
from adapters.text.layout import POSITIONS, PromptLayout
from adapters.text.prompt_views import Prompts, mean_view, project, stacked_views
from adapters.text.templates import CONTEXT_WORDS, PLAIN_TEMPLATE, VARIED_TEMPLATES
from adapters.text.tower import TextTower

_WHOLE = (("steps", 0, 1000), ("class_batch", 2, 4096), ("chunk", 1, 4096), ("seed", 0, 2**63 - 1))
_SHARES = (("hand_share", 1), ("dispersion", 1000), ("anchor", 1000), ("centre", 1), ("debias", 1))


@dataclass(frozen=True, slots=True)
class SelfTPTSettings:
    """Stage 2 and 3. The paper gives no step count, rate or temperature; these were chosen on development sets
    (docs/experiments.md). `steps` 0 serves the source prompts as they are."""

    steps: int = 5
    learning_rate: float = 1e-3
    temperature: float = 0.1
    class_batch: int = 128
    """Texts per step; larger label sets are walked through in a seeded order. Bounds the time of a step."""
    chunk: int = 64
    """Prompts held with a graph at a time. Bounds the memory."""
    views: Literal["end", "mean"] = "mean"
    """Stage 3: the name-at-end view alone, or the mean of all four views."""
    hand: Literal["template", "varied", "ensemble"] = "template"
    """The hand-written view: one template, or the mean of seven or of CLIP's 80. Those of the label set go first."""
    hand_share: float = 0.25
    """Weight of the hand-written view in the mean of the views; 0.25 makes all four equal."""
    dispersion: float = 0.0
    """Weight in stage 2 of DAPT's spread of the classes, taken on the rows that are served."""
    anchor: float = 0.0
    """Weight in stage 2 of the mean squared distance to the rows before the first step."""
    centre: float = 0.0
    """Share of the classes' mean that is subtracted from their rows."""
    debias: float = 0.0
    """Share of the direction common to all source images that is taken out of the rows; needs source prompts."""
    calibrated: bool = True
    """Whether the logit scale follows the label set, or the support images, instead of being the backbone's."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in _WHOLE:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in {low} to {high}")
        for name, high in _SHARES:
            if not 0 <= getattr(self, name) <= high:  # NaN fails too
                raise ValueError(f"{name} must lie in 0 to {high}")
        if not (0 < self.learning_rate <= 1 and 0 < self.temperature <= 100):
            raise ValueError("learning_rate must lie in (0, 1] and temperature in (0, 100]")


def served_rows(prompts: Prompts, ctx_MW: Tensor, hand_ND: Tensor, settings: SelfTPTSettings, tick: Tick) -> Tensor:
    """Stage 3: one unit row [N, D] per text. The learnt views are summed as they come: all of them at once would take
    several times the memory of the class weights."""
    count, end = prompts.count, slice((len(POSITIONS) - 1) * prompts.count, None)
    layout, back = prompts.sorted(prompts.layout if settings.views == "mean" else prompts.layout.rows(end))

    def encode(part: slice) -> Tensor:
        return prompts.encode(ctx_MW, layout, part)

    chunk = prompts.slices(layout, held=settings.chunk).plain
    sums_ND = sum_rows(encode, back.argsort() % count, torch.zeros_like(hand_ND), chunk=chunk, tick=tick)
    if settings.views == "end":
        return sums_ND
    sums_ND *= (1 - settings.hand_share) / len(POSITIONS)
    return F.normalize(sums_ND.add_(hand_ND, alpha=settings.hand_share), dim=-1, out=sums_ND)


@dataclass(frozen=True, slots=True, eq=False)
class StageTwoLoss:
    """Contrast between the names' views; and on the rows that stage 3 will serve, what spreads the classes (DAPT) and
    what holds them near their start [N, D] (empty when nothing does)."""

    settings: SelfTPTSettings
    head: Mapping[str, Tensor]
    start_ND: Tensor

    def __call__(self, learnt_ND: Tensor, hand_ND: Tensor, rows: Tensor, owners_N: Tensor) -> Tensor:
        settings, views_VND = self.settings, stacked_views(learnt_ND, hand_ND)
        projected = project(views_VND, self.head)
        total = contrastive_prompt_loss(projected, temperature=settings.temperature, owners_C=owners_N)
        if settings.dispersion == 0 and settings.anchor == 0:
            return total
        served_ND = views_VND[-2] if settings.views == "end" else mean_view(views_VND, hand_share=settings.hand_share)
        if settings.dispersion > 0:
            _, place_N = owners_N.unique(return_inverse=True)
            sums_CD = served_ND.new_zeros(int(place_N.max()) + 1, served_ND.shape[-1])
            classes_CD = F.normalize(sums_CD.index_add(0, place_N.to(served_ND.device), served_ND), dim=-1)
            total = total + settings.dispersion * inter_dispersion_loss(classes_CD)
        if settings.anchor > 0:
            total = total + settings.anchor * (served_ND - self.start_ND[rows]).square().sum(dim=-1).mean()
        return total


def adapt_context(
    prompts: Prompts,
    hand_ND: Tensor,
    *,
    start_MW: Tensor,
    head: Mapping[str, Tensor],
    settings: SelfTPTSettings,
    tick: Tick,
    through: Callable[[Tensor], Tensor] = lambda ctx: ctx,
) -> tuple[Tensor, list[float]]:
    """Stage 2: `steps` AdamW steps on the context only, on the contrastive prompt loss of the names. Returns the
    context [M, W] and the losses. Prompts are encoded with what `through` makes of the context. The hand-written view
    [N, D] is constant; a single class has no negatives, so no steps are made for it."""
    ctx_MW = start_MW.clone().requires_grad_()
    anchored = settings.anchor > 0 and settings.steps > 0
    start_ND = served_rows(prompts, start_MW, hand_ND, settings, tick) if anchored else hand_ND[:0]
    objective = StageTwoLoss(settings, head, start_ND)
    optimizer = torch.optim.AdamW([ctx_MW], lr=settings.learning_rate, weight_decay=0.0)
    losses: list[float] = []
    batches = _batches(prompts.count, settings)
    for _ in range(settings.steps if prompts.classes > 1 else 0):
        rows = next(batches)
        layout, back = prompts.sorted(prompts.batch(rows))

        def loss(learnt_ND: Tensor, rows: Tensor = rows, back: Tensor = back) -> Tensor:
            return objective(learnt_ND[back], hand_ND[rows], rows, prompts.owners_N[rows])

        def encode(part: slice, layout: PromptLayout = layout) -> Tensor:
            return prompts.encode(through(ctx_MW), layout, part)

        optimizer.zero_grad()
        slices = prompts.slices(layout, held=settings.chunk)
        losses.append(backward_rows(encode, len(layout), loss, chunk=slices, tick=tick))
        optimizer.step()
        if not (math.isfinite(losses[-1]) and bool(ctx_MW.isfinite().all())):
            raise AdaptationDiverged(f"contrastive prompt loss became {losses[-1]} after {len(losses)} steps")
    return ctx_MW.detach(), losses


def _batches(count: int, settings: SelfTPTSettings) -> Iterator[Tensor]:
    """Endless seeded walks through the texts, some at a time."""
    generator = torch.Generator().manual_seed(settings.seed)
    batch = min(settings.class_batch, count)
    order = torch.empty(0, dtype=torch.long)
    while True:
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        yield order[:batch].sort().values
        order = order[batch:]


class SelfTPT:
    """Adapts once per label set; images then cost what plain zero-shot costs. Without source prompts for its backbone
    it starts at the template's context and contrasts in the joint space: data-free, and said so in `info["mode"]`."""

    name = "self-tpt"

    def __init__(
        self, settings: SelfTPTSettings, backbone: Backbone, through: Callable[[], Through] = AsLearnt
    ) -> None:
        source = backbone.source
        self.settings = settings
        self._through = through
        parts = (source.version if source else "none", calibration_version(backbone))
        self.version = settings_version(self.name, settings, *parts)

    def needs(self, state: ClassState) -> ImageNeeds:
        return PLAIN

    def prompts(self, labels: LabelSet) -> int:
        """Passes through the text tower; one with its gradient counts three, for what was not held one more."""
        settings, texts = self.settings, len(named_texts(labels).texts)
        step = min(settings.class_batch, texts) * len(POSITIONS)
        learnt = settings.steps * step * (3 if step <= settings.chunk else 4) if len(labels.classes) > 1 else 0
        views = len(POSITIONS) if settings.views == "mean" else 1
        return learnt + texts * (views * (2 if settings.anchor > 0 else 1) + len(self._hand_templates(labels)))

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        """Support images, where there are any, only set the logit scale."""
        started = time.perf_counter()
        text, source = backbone.text, backbone.source
        text.check(labels, tick=lambda: None if progress is None else progress(0.0))
        start_MW = source.ctx_MW.to(text.device) if source else text.embed_tokens(text.tokens(CONTEXT_WORDS))
        named = named_texts(labels)
        prompts = Prompts(text, named.texts, context=len(start_MW), owners=named.owners)
        tick = ticker(progress, self._ticks(prompts, text, len(self._hand_templates(labels))))
        hand_ND = self._hand_written(labels, named, text, tick)
        with torch.enable_grad():
            head, through = source.head if source else {}, self._through()
            ctx_MW, losses = adapt_context(
                prompts, hand_ND, start_MW=start_MW, head=head, settings=self.settings, tick=tick, through=through
            )
        ctx_MW = through.seal(ctx_MW)
        served_ND = served_rows(prompts, ctx_MW, hand_ND, self.settings, tick)
        del hand_ND  # as large as the class weights
        rows_CD = self._parted(named.mean_rows(served_ND, len(labels.classes)), backbone)
        weights_CD = blend_descriptions(rows_CD, labels, text, tick)
        scale = served_scale(weights_CD, backbone, support, calibrated=self.settings.calibrated, tick=tick)
        info: dict[str, InfoValue] = {
            "source_prompts": backbone.source_prompts,
            "mode": "source prompts" if source else "data-free",
            "steps": len(losses),
            **scale.info,
            "seconds": round(time.perf_counter() - started, 3),
        }
        if losses:
            info |= {"loss_first": losses[0], "loss_last": losses[-1]}
        return ClassState(
            adapter=self.name,
            version=self.version,
            weights=weights_CD,
            background=background_row(text),
            logit_scale=scale.scale,
            extras={"context": ctx_MW},
            info=info,
        )

    def _hand_written(self, labels: LabelSet, named: OwnedTexts, text: TextTower, tick: Tick) -> Tensor:
        """The fourth view, constant: unit rows [N, D], one per text."""
        templates = self._hand_templates(labels)
        sums_ND = text.encode_templated(named.texts, templates, tick=tick)
        return F.normalize(sums_ND, dim=-1, out=sums_ND)

    def _hand_templates(self, labels: LabelSet) -> tuple[str, ...]:
        if self.settings.hand == "template":
            return labels.templates[:1] or (PLAIN_TEMPLATE,)
        return labels.templates or (VARIED_TEMPLATES if self.settings.hand == "varied" else ensemble_templates())

    def _parted(self, rows_CD: Tensor, backbone: Backbone) -> Tensor:
        """What all classes, or all images, have in common is partly taken out of the rows."""
        rows_CD = without_common(rows_CD, share=self.settings.centre)
        mean_D = backbone.source.image_mean_D if backbone.source else None
        return rows_CD if mean_D is None else without_direction(rows_CD, mean_D, share=self.settings.debias)

    def _ticks(self, prompts: Prompts, text: TextTower, templates: int) -> int:
        settings, slices = self.settings, prompts.slices(prompts.layout, held=self.settings.chunk)
        step = slices.ticks(min(settings.class_batch, prompts.count) * len(POSITIONS))
        serve = math.ceil(len(prompts.layout) / slices.plain) * (2 if settings.anchor > 0 else 1)
        return settings.steps * step + serve + text.text_ticks(prompts.count * templates)
