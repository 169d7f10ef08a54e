"""TGP-T (AAAI 2024, arXiv 2312.06401): prompts made from each image's tokens, taught by texts during the fit. A step
encodes two sequences per image, however many classes there are. Closed set: the head has a row per class.

Tensor suffixes: B images, N support images, C classes, Q queries, D joint width, W text width, X vocabulary.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.base import ClassState, ImageNeeds, InfoValue, LabelSet, Progress, Support
from adapters.calibration import ServedScale, fitted_scale
from adapters.checkpoint import settings_version
from adapters.clip import Backbone
from adapters.errors import BackboneError
from adapters.learning.bonder import Sizes, TextGuide, bank_size, fresh_guide, stored_guide
from adapters.learning.class_texts import background_row, blend_descriptions, named_texts, templated, ticker
from adapters.learning.few_shot import heldout_info
from adapters.learning.fitting import checked_support, fit, minibatches, split_support
from adapters.learning.text_guidance import Judge, Lesson, image_scores, lesson_loss, targets
from adapters.learning.token_cache import IMAGES_AT_ONCE, cache_ticks, support_tokens
from adapters.ranges import check_ranges
from adapters.text.chunked import Tick
from adapters.text.templates import CONTEXT_WORDS, PLAIN_TEMPLATE

WARMUP = 100
EXTRA = "guide."
"""Start of the names under which the network stands among a state's extras."""


@dataclass(frozen=True, slots=True)
class TGPTSettings:
    """Banks, batch, decay and losses as published; steps and rate were chosen on held-out support images, for the
    published 12,800 to 51,200 steps are hours on one core."""

    steps: int = 400
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch: int = 8
    category_queries: int = 32
    content_queries: int = 64
    """Sizes of the two banks for a context of 77 tokens; a shorter context gets proportionally fewer."""
    augmented_views: int = 3
    """Random views of each support image to learn from, besides the image itself."""
    balance: bool = True
    """Brings text features to the mean length of image features before the common norm. As published is false: right
    for towers whose features are about equally long already."""
    head_mix: float = 1.0
    """Share of the learnt head; the rest is the head's start, zero-shot (WiSE-FT, arXiv 2109.01903)."""
    heldout: float = 0.25
    check_every: int = 100
    """Steps between two looks at the held-out images; the best look is served."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self, steps=(0, 100_000), batch=(1, 1024), category_queries=(1, 64), content_queries=(1, 128),
            augmented_views=(0, 64), check_every=(1, 100_000), seed=(0, 2**31 - 1), learning_rate=(0, 1.0),
            weight_decay=(0, 1.0), head_mix=(0, 1.0), heldout=(0, 0.9),
        )  # fmt: skip


class TGPT:
    """Fits once per label set and support; every image then costs two short text passes besides its own."""

    name = "tgp-t"

    def __init__(self, settings: TGPTSettings, backbone: Backbone) -> None:
        self.settings = settings
        self.version = settings_version(self.name, settings, backbone.image.tokens_version)

    def needs(self, state: ClassState) -> ImageNeeds:
        return ImageNeeds(scored_by=self.name)

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        """Raises `SupportError` without images of every class, `BackboneError` where the image tower has no tokens."""
        started = time.perf_counter()
        backbone.text.check(labels)
        support = checked_support(support, labels)
        if not backbone.image.promptable:
            raise BackboneError(f"tgp-t needs the image tower's tokens, and backbone {backbone.name} has none to give")
        split = split_support(support.labels, fraction=self.settings.heldout, seed=self.settings.seed)
        tick = ticker(progress, self._ticks(len(labels.classes), len(support), len(split.heldout)))
        weights_CD, text_length = self._class_texts(labels, backbone, tick)
        lesson = self._lesson(labels, backbone, support, tick)
        guide = self._start(lesson, weights_CD, text_length, backbone)
        judge = Judge(guide, lesson, split.heldout.to(backbone.device), backbone, tick)
        with torch.enable_grad():
            losses = self._fit(lesson, guide, split.train.to(backbone.device), judge, tick)
        judge.restore()
        with torch.no_grad():
            guide.head.weight.lerp_(guide.start_of_head(weights_CD), 1 - self.settings.head_mix)
        scale, told = self._judged(judge, weights_CD, support.labels, split.heldout)
        info: dict[str, InfoValue] = {
            "steps": len(losses),
            "seconds": round(time.perf_counter() - started, 3),
            **told,
            "parameters": sum(parameter.numel() for parameter in guide.parameters()),
            "augmented_views": lesson.cache.views,
            "captions": sum(1 for row in lesson.content_NQ.tolist() if row[0] >= 0),
        }
        if losses:
            info |= {"loss_first": losses[0], "loss_last": losses[-1]}
        return ClassState(
            adapter=self.name,
            version=self.version,
            weights=weights_CD,
            background=background_row(backbone.text),
            logit_scale=scale.scale,
            extras={EXTRA + key: value.detach() for key, value in guide.state_dict().items()},
            info=info,
        )

    def logits(self, pixels: Tensor, state: ClassState, backbone: Backbone) -> Tensor:
        tensors = {key.removeprefix(EXTRA): value for key, value in state.extras.items() if key.startswith(EXTRA)}
        tokens_BTD, features_BD = backbone.image.stem_tokens(backbone.image.stem(pixels))
        guide = stored_guide(tensors, backbone.device)
        return state.logit_scale * image_scores(guide, tokens_BTD, features_BD, backbone.text)

    def _class_texts(self, labels: LabelSet, backbone: Backbone, tick: Tick) -> tuple[Tensor, float]:
        """Unit row [C, D] of each class, from its texts' features at their own lengths, and their mean length."""
        named = templated(named_texts(labels), labels.templates or (PLAIN_TEMPLATE,))
        features_ND = backbone.text.encode_texts(named.texts, tick=tick, unit=False)
        rows_CD = named.mean_rows(features_ND, len(labels.classes))
        return blend_descriptions(rows_CD, labels, backbone.text, tick), features_ND.norm(dim=-1).mean().item()

    def _lesson(self, labels: LabelSet, backbone: Backbone, support: Support, tick: Tick) -> Lesson:
        settings, text = self.settings, backbone.text
        category = [PLAIN_TEMPLATE.replace("{}", name) for name in labels.names]
        captions = support.captions or (None,) * len(support)
        return Lesson(
            support_tokens(backbone, support, views=settings.augmented_views, seed=settings.seed, tick=tick),
            support.labels.to(backbone.device),
            targets(category, text, bank_size(settings.category_queries, text.context_length)).to(backbone.device),
            targets(captions, text, bank_size(settings.content_queries, text.context_length)).to(backbone.device),
        )

    def _start(self, lesson: Lesson, weights_CD: Tensor, text_length: float, backbone: Backbone) -> TextGuide:
        sizes = Sizes(
            joint=backbone.embed_dim,
            text=backbone.text.width,
            category=lesson.category_CQ.shape[1],
            content=lesson.content_NQ.shape[1],
            classes=len(weights_CD),
        )
        image_length = lesson.cache.features_NVD[:, 0].norm(dim=-1).mean().item()
        return fresh_guide(
            sizes,
            words_nW=backbone.text.embed_tokens(backbone.text.tokens(CONTEXT_WORDS)),
            rows_CD=weights_CD,
            text_share=image_length / text_length if self.settings.balance else 1.0,
            seed=self.settings.seed,
            device=backbone.device,
        )

    def _fit(self, lesson: Lesson, guide: TextGuide, rows: Tensor, judge: Judge, tick: Tick) -> list[float]:
        """AdamW on everything in the network. Every image appears in a view of its own draw."""
        settings, backbone = self.settings, judge.backbone
        generator = torch.Generator().manual_seed(settings.seed)
        parameters = list(guide.parameters())
        optimizer = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, eps=1e-7, weight_decay=settings.weight_decay
        )
        done = 0

        def step(rows_B: Tensor) -> float:
            views_B = torch.randint(1 + lesson.cache.views, (len(rows_B),), generator=generator)
            loss = lesson_loss(guide, lesson, rows_B, views_B.to(rows_B.device), backbone)
            loss.backward()
            return loss.item()

        def after() -> None:
            nonlocal done
            done += 1
            tick()
            if done % settings.check_every == 0 or done == settings.steps:
                judge.consider()

        judge.consider()
        batches = minibatches(rows, settings.batch, seed=settings.seed)
        warmup = min(WARMUP, settings.steps // 10)
        return fit(parameters, step, batches, steps=settings.steps, optimizer=optimizer, warmup=warmup, tick=after)

    def _judged(
        self, judge: Judge, weights_CD: Tensor, labels_N: Tensor, heldout: Tensor
    ) -> tuple[ServedScale, dict[str, InfoValue]]:
        """The scale that suits the held-out images, and what they say. Without any the scale is that of the fit."""
        trained = judge.backbone.logit_scale
        if len(heldout) == 0:
            return ServedScale(trained, "backbone"), heldout_info(heldout, labels_N, weights_CD, weights_CD)
        scores_nC, labels_n = judge.scores()
        scale = ServedScale(fitted_scale(scores_nC.cpu(), labels_n.cpu(), expected=trained), "support")
        return scale, heldout_info(heldout, labels_N, scores_nC, judge.plain(weights_CD)) | scale.info

    def _ticks(self, classes: int, images: int, heldout: int) -> int:
        looks = 3 + self.settings.steps // self.settings.check_every
        judged = looks * math.ceil(heldout / IMAGES_AT_ONCE)
        return classes // 256 + 1 + cache_ticks(images, self.settings.augmented_views) + self.settings.steps + judged
