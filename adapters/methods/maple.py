"""MaPLe (arXiv 2210.03117): prompts in both towers, several blocks deep; those of the image tower are linear maps of
those of the text tower, and all is learnt from a few labelled images.

Tensor suffixes: J layers with prompts, P prompts per layer, W text width, V width of image tokens, B images of a step,
C classes, D joint width, H held-out images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adapters.base import (
    VISUAL_PROMPTS_BEFORE_NORM,
    ClassState,
    ImageNeeds,
    LabelSet,
    Progress,
    Support,
    VisualPrompts,
    needs_of,
)
from adapters.calibration import calibration_version
from adapters.checkpoint import settings_version
from adapters.clip import Backbone
from adapters.errors import BackboneError
from adapters.learning.class_texts import ticker
from adapters.learning.few_shot import Learnt, SupportImages, fitted_state, plain_rows
from adapters.learning.fitting import checked_support
from adapters.learning.support_features import feature_ticks
from adapters.learning.support_stems import SupportStems
from adapters.methods.coop import RANDOM_START, CoOpSettings, anchored, check_negatives, fit_context
from adapters.quantization.through import AsLearnt, Through
from adapters.ranges import check_ranges
from adapters.text.chunked import Tick
from adapters.text.prompted_classes import PromptedClasses
from adapters.text.templates import CONTEXT_WORDS


@dataclass(frozen=True, slots=True)
class MaPLeSettings:
    """The paper's two prompts in nine layers, as far as the towers are that deep. Rate and steps are for AdamW; they
    were chosen on held-out support images."""

    prompts: int = 2
    layers: int = 9
    steps: int = 100
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    anchor: float = 0.5
    """Weight of the mean squared distance of the class rows from those of plain zero-shot; not in the paper."""
    batch: int = 32
    """Images per step. They pass the image tower with a graph."""
    class_batch: int = 256
    """Classes per step where there are more: those of its images, and others by a seeded draw."""
    chunk: int = 64
    """Prompts encoded with a graph at a time. Bounds the memory and the length of a slice."""
    views: int = 4
    """Random crops of each support image, beside the image itself."""
    heldout: float = 0.25
    """Share of each class's images that is kept apart, to judge the fit by."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self, prompts=(1, 16), layers=(1, 64), steps=(0, 10_000), learning_rate=(1e-9, 1), weight_decay=(0, 1),
            anchor=(0, 1000), batch=(1, 4096), class_batch=(2, 2**20), chunk=(1, 4096), views=(0, 64), heldout=(0, 0.9),
            seed=(0, 2**63 - 1),
        )  # fmt: skip

    @property
    def fit(self) -> CoOpSettings:
        """What the shared fit wants to know."""
        return CoOpSettings(
            context=self.prompts, steps=self.steps, learning_rate=self.learning_rate, weight_decay=self.weight_decay,
            views=self.views, batch=self.batch, class_batch=self.class_batch, chunk=self.chunk, heldout=self.heldout,
            seed=self.seed,
        )  # fmt: skip


class DeepPromptedClasses(PromptedClasses):
    """Class rows as a function of prompts [J, P, W]: those of the first layer stand before the name, the others take
    their place at the entrance of the later blocks."""

    def _encoder(self, ctx: Tensor, texts: Tensor) -> Callable[[slice], Tensor]:
        return lambda part: self._text.encode_prompts(ctx[0], self._layout.rows(texts[part]), deep_IMW=ctx[1:])


@dataclass(frozen=True, slots=True, eq=False)
class CoupledPrompts:
    """What is learnt: prompts [J, P, W] of the text tower, and per layer a linear map to prompts of the image tower,
    weights [J, V, W] and biases [J, V]."""

    text_JPW: Tensor
    weights_JVW: Tensor
    biases_JV: Tensor

    @classmethod
    def start(cls, words_PW: Tensor, *, layers: int, token_width: int, seed: int) -> CoupledPrompts:
        """Words in the first layer, random prompts below. As in the paper, the deeper maps start alike."""
        generator = torch.Generator().manual_seed(seed)
        count, width = words_PW.shape
        deep = torch.randn(layers - 1, count, width, generator=generator).mul(RANDOM_START).to(words_PW.device)
        bound = width**-0.5  # that of torch's own linear layers
        maps = torch.empty(2, token_width, width + 1).uniform_(-bound, bound, generator=generator).to(words_PW.device)
        maps = maps[[0] + [1] * (layers - 1)]
        return cls(torch.cat([words_PW[None], deep]), maps[..., :-1].contiguous(), maps[..., -1].contiguous())

    @property
    def scalars(self) -> int:
        return self.text_JPW.numel() + self.weights_JVW.numel() + self.biases_JV.numel()

    def visual(self, text_JPW: Tensor) -> Tensor:
        """Prompts [J, P, V] for the image tower."""
        return torch.einsum("jpw,jvw->jpv", text_JPW, self.weights_JVW) + self.biases_JV[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class SealedPrompts:
    """What is kept of a fit: sealed prompts of both towers, and the losses."""

    text_JPW: Tensor
    visual_JPV: Tensor
    losses: list[float]

    @property
    def visual(self) -> VisualPrompts:
        return VisualPrompts(self.visual_JPV, before_norm=True)


class MaPLe:
    """Serves class weights and the projected visual prompts; the maps between the towers end with the fit.

    `through` makes what stands between the prompts and their towers, once for the text and once for the image tower.
    """

    name = "maple"

    def __init__(self, settings: MaPLeSettings, backbone: Backbone, through: Callable[[], Through] = AsLearnt) -> None:
        self.settings, self._through = settings, through
        self.version = settings_version(
            self.name, settings, backbone.image.tokens_version, calibration_version(backbone)
        )

    def needs(self, state: ClassState) -> ImageNeeds:
        return needs_of(state)

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        """Raises `BackboneError` when no prompts can enter the image tower."""
        started, settings = time.perf_counter(), self.settings
        backbone.text.check(labels)
        check_negatives(labels)
        support = checked_support(support, labels)
        if not backbone.image.promptable:
            raise BackboneError(f"maple prompts both towers, and the image tower of {backbone.name} takes no prompts")
        prompts = deep_prompts(labels, backbone, settings)
        tick = ticker(progress, self._ticks(support, prompts))
        data = SupportImages.of(support, backbone, views=0, heldout=settings.heldout, seed=settings.seed, tick=tick)
        stems = SupportStems(backbone, support, views=settings.views, seed=settings.seed, tick=tick)
        plain_CD = plain_rows(labels, backbone)
        found = self._learn(prompts, data, stems, plain_CD, backbone=backbone, tick=tick)
        rows_CD, held = prompts.rows(found.text_JPW, tick=tick), data.split.heldout
        heldout_HD = stems.features(held, found.visual) if len(held) else data.features_NVD[held, 0]
        learnt = Learnt(rows_CD, heldout_HD, found.losses, started)
        return fitted_state(
            self.name, self.version, learnt, data, backbone,
            plain_CD=plain_CD, extras={"context": found.text_JPW, VISUAL_PROMPTS_BEFORE_NORM: found.visual_JPV},
        )  # fmt: skip

    def extend(self, state: ClassState, labels: LabelSet, backbone: Backbone) -> ClassState:
        """Any classes served by the prompts of a state, without a fit."""
        backbone.text.check(labels)
        text_JPW = state.extras["context"].to(backbone.device)
        return replace(state, weights=deep_prompts(labels, backbone, self.settings).rows(text_JPW))

    def _learn(
        self, prompts: DeepPromptedClasses, data: SupportImages, stems: SupportStems, plain_CD: Tensor, *,
        backbone: Backbone, tick: Tick,
    ) -> SealedPrompts:  # fmt: skip
        coupled = start_prompts(backbone, self.settings)
        text_through, visual_through = self._through(), self._through()
        drawn = stems.drawn(self.settings.seed)

        def images(rows_B: Tensor) -> Tensor:
            visual_JPV = visual_through(coupled.visual(text_through(coupled.text_JPW)))
            return backbone.image.encode_stem(drawn(rows_B), VisualPrompts(visual_JPV, before_norm=True))

        maps = [coupled.weights_JVW.requires_grad_(), coupled.biases_JV.requires_grad_()]
        losses = fit_context(
            coupled.text_JPW, prompts, images, data, self.settings.fit,
            logit_scale=backbone.logit_scale, through=text_through,
            penalty=anchored(plain_CD, self.settings.anchor), visual=[{"params": maps}], tick=tick,
        )  # fmt: skip
        with torch.no_grad():
            text_JPW = text_through.seal(coupled.text_JPW.detach())
            return SealedPrompts(text_JPW, visual_through.seal(coupled.visual(text_JPW)), losses)

    def _ticks(self, support: Support, prompts: PromptedClasses) -> int:
        serve = math.ceil(prompts.texts / self.settings.chunk)
        step = math.ceil(min(prompts.texts, self.settings.class_batch) / self.settings.chunk)
        step = 2 * step + 1 if step > 1 else 2
        images = feature_ticks(len(support), 0) + feature_ticks(len(support), self.settings.views)
        return images + self.settings.steps * step + serve


def deep_prompts(labels: LabelSet, backbone: Backbone, settings: MaPLeSettings) -> DeepPromptedClasses:
    return DeepPromptedClasses(backbone.text, labels, context=settings.prompts, position="end", chunk=settings.chunk)


def start_prompts(backbone: Backbone, settings: MaPLeSettings) -> CoupledPrompts:
    """The first words of the template, as many layers as both towers have, and random maps."""
    text, image = backbone.text, backbone.image
    words_PW = text.embed_tokens(text.tokens(CONTEXT_WORDS)[: settings.prompts])
    generator = torch.Generator().manual_seed(settings.seed)
    more = torch.randn(settings.prompts - len(words_PW), text.width, generator=generator).mul(RANDOM_START)
    layers = min(settings.layers, text.depth, image.depth)
    first_PW = torch.cat([words_PW, more.to(words_PW.device)])
    return CoupledPrompts.start(first_PW, layers=layers, token_width=image.token_width, seed=settings.seed)
