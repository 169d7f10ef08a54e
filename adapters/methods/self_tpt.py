"""Self-TPT (arXiv 2408.05775), stages 2 and 3: adapt the context to a label set by its names alone, then make the class
weights. Stage 1, which makes the source prompts, is `adapters.training.source_prompts`.

Tensor suffixes: C classes, V views, D joint width, P projected width, M context tokens, W text width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import PLAIN, ClassState, ImageNeeds, InfoValue, LabelSet, Progress, Support
from adapters.checkpoint import settings_version
from adapters.chunked import Tick, backward_rows, encode_rows
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged
from adapters.layout import POSITIONS, PromptLayout, concatenate, lay_out
from adapters.losses import contrastive_prompt_loss
from adapters.methods.class_texts import OwnedTexts, background_row, blend_descriptions, named_texts, ticker
from adapters.templates import CONTEXT_WORDS, PLAIN_TEMPLATE
from adapters.through import AsLearnt, Through
from adapters.towers import TextTower


@dataclass(frozen=True, slots=True)
class SelfTPTSettings:
    """Stage 2 and 3. The paper gives no step count, rate or temperature; these were chosen on development sets
    (docs/experiments.md). `steps` 0 serves the source prompts as they are."""

    steps: int = 5
    learning_rate: float = 1e-3
    temperature: float = 0.1
    class_batch: int = 128
    """Classes per step; larger label sets are walked through in a seeded order. Bounds the time of a step."""
    chunk: int = 64
    """Prompts encoded with a graph at a time. Bounds the memory and the length of a slice."""
    views: Literal["end", "mean"] = "mean"
    """Stage 3: the name-at-end view alone, or the mean of all four views."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 0, 1000),
            ("class_batch", 2, 4096),
            ("chunk", 1, 4096),
            ("seed", 0, 2**63 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in {low} to {high}")
        if not (0 < self.learning_rate <= 1 and 0 < self.temperature <= 100):  # NaN fails both
            raise ValueError("learning_rate must lie in (0, 1] and temperature in (0, 100]")


class Prompts:
    """A label set's texts in the learnt positions (front, middle, end), position by position."""

    def __init__(self, text: TextTower, texts: tuple[str, ...], *, context: int) -> None:
        names = [text.tokens(t) for t in texts]
        stop = text.tokens(".")
        self.count = len(texts)
        self.layout = concatenate(
            [lay_out(names, context=context, position=p, stop=stop, sot=text.sot, eot=text.eot) for p in POSITIONS]
        )
        self._text = text

    def batch(self, rows: Tensor) -> PromptLayout:
        """The chosen texts in all positions."""
        return self.layout.rows(torch.cat([rows + place * self.count for place in range(len(POSITIONS))]))

    def encode(self, ctx_MW: Tensor, layout: PromptLayout, part: slice) -> Tensor:
        return self._text.encode_prompts(ctx_MW, layout.rows(part))


def project(features_ND: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    """The projection head that stage 1 learnt; without one, contrast in the joint space itself."""
    return F.linear(features_ND, head["weight"].to(features_ND.device)) if head else features_ND


def adapt_context(
    prompts: Prompts,
    hand_CD: Tensor,
    *,
    start_MW: Tensor,
    head: Mapping[str, Tensor],
    settings: SelfTPTSettings,
    tick: Tick,
    through: Callable[[Tensor], Tensor] = lambda ctx: ctx,
) -> tuple[Tensor, list[float]]:
    """Stage 2: `steps` AdamW steps on the context only, on the contrastive prompt loss of the names. Returns the
    context [M, W] and the losses. Prompts are encoded with what `through` makes of the context. The hand-written view
    [C, D] is constant; a single class has no negatives, so no steps are made for it."""
    ctx_MW = start_MW.clone().requires_grad_()
    optimizer = torch.optim.AdamW([ctx_MW], lr=settings.learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(settings.seed)
    losses: list[float] = []
    order = torch.empty(0, dtype=torch.long)
    batch = min(settings.class_batch, prompts.count)
    for _ in range(settings.steps if prompts.count > 1 else 0):
        if len(order) < batch:
            order = torch.randperm(prompts.count, generator=generator)
        rows, order = order[:batch].sort().values, order[batch:]
        layout, hand_CP = prompts.batch(rows), project(hand_CD[rows], head)

        def loss(learnt_ND: Tensor, hand_CP: Tensor = hand_CP) -> Tensor:
            views_VCP = torch.cat([project(learnt_ND, head), hand_CP]).view(len(POSITIONS) + 1, len(hand_CP), -1)
            return contrastive_prompt_loss(views_VCP, temperature=settings.temperature)

        def encode(part: slice, layout: PromptLayout = layout) -> Tensor:
            return prompts.encode(through(ctx_MW), layout, part)

        optimizer.zero_grad()
        losses.append(backward_rows(encode, len(layout), loss, chunk=settings.chunk, tick=tick))
        optimizer.step()
        if not (math.isfinite(losses[-1]) and bool(ctx_MW.isfinite().all())):
            raise AdaptationDiverged(f"contrastive prompt loss became {losses[-1]} after {len(losses)} steps")
    return ctx_MW.detach(), losses


class SelfTPT:
    """Adapts once per label set; images then cost what plain zero-shot costs."""

    name = "self-tpt"

    def __init__(
        self, settings: SelfTPTSettings, backbone: Backbone, through: Callable[[], Through] = AsLearnt
    ) -> None:
        source = backbone.source
        self.settings = settings
        self._through = through
        self.version = settings_version(self.name, settings, source.version if source else "none")

    def needs(self, state: ClassState) -> ImageNeeds:
        return PLAIN

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        started = time.perf_counter()
        text, source = backbone.text, backbone.source
        text.check(labels)
        start_MW = source.ctx_MW.to(text.device) if source else text.embed_tokens(text.tokens(CONTEXT_WORDS))
        named = named_texts(labels)
        tick = ticker(progress, self._ticks(len(named.texts)))
        prompts = Prompts(text, named.texts, context=len(start_MW))
        hand_ND = self._hand_written(labels, named, text, tick)
        with torch.enable_grad():
            head, through = source.head if source else {}, self._through()
            ctx_MW, losses = adapt_context(
                prompts, hand_ND, start_MW=start_MW, head=head, settings=self.settings, tick=tick, through=through
            )
        ctx_MW = through.seal(ctx_MW)
        rows_CD = named.mean_rows(self._served(prompts, ctx_MW, hand_ND, tick), len(labels.classes))
        info: dict[str, InfoValue] = {
            "source_prompts": backbone.source_prompts,
            "steps": len(losses),
            "seconds": round(time.perf_counter() - started, 3),
        }
        if losses:
            info |= {"loss_first": losses[0], "loss_last": losses[-1]}
        return ClassState(
            adapter=self.name,
            version=self.version,
            weights=blend_descriptions(rows_CD, labels, text, tick),
            background=background_row(text),
            logit_scale=backbone.logit_scale,
            extras={"context": ctx_MW},
            info=info,
        )

    def _hand_written(self, labels: LabelSet, named: OwnedTexts, text: TextTower, tick: Tick) -> Tensor:
        """The fourth view: the label set's own first template, or the plain one."""
        template = labels.templates[0] if labels.templates else PLAIN_TEMPLATE
        return text.encode_texts([template.replace("{}", t) for t in named.texts], tick=tick)

    def _served(self, prompts: Prompts, ctx_MW: Tensor, hand_ND: Tensor, tick: Tick) -> Tensor:
        """Stage 3: one feature [N, D] per text."""

        def encode(part: slice) -> Tensor:
            return prompts.encode(ctx_MW, layout, part)

        end = slice((len(POSITIONS) - 1) * prompts.count, None)
        layout = prompts.layout if self.settings.views == "mean" else prompts.layout.rows(end)
        learnt_ND = encode_rows(encode, len(layout), chunk=self.settings.chunk, tick=tick)
        if self.settings.views == "end":
            return learnt_ND
        return torch.cat([learnt_ND, hand_ND]).view(len(POSITIONS) + 1, prompts.count, -1).mean(dim=0)

    def _ticks(self, texts: int) -> int:
        step = math.ceil(min(self.settings.class_batch, texts) * len(POSITIONS) / self.settings.chunk)
        serve = math.ceil(texts * len(POSITIONS) / self.settings.chunk)
        return self.settings.steps * (2 * step if step > 1 else 1) + serve + math.ceil(texts / 256)
