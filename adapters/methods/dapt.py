"""DAPT (arXiv 2309.03406): CoOp's context and a few prompts for the image tower, learnt together while the classes are
spread out in text space and the images of a class gathered around their mean.

Tensor suffixes: N support images, B images of a step, H held-out images, C classes, D joint width, J layers with
prompts (one), P visual prompts, V width of image tokens.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from adapters.base import (
    VISUAL_PROMPTS,
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
from adapters.errors import OptionError
from adapters.learning.class_texts import ticker
from adapters.learning.few_shot import Images, Learnt, SupportImages, fitted_state, plain_rows
from adapters.learning.fitting import checked_support
from adapters.learning.losses import inter_dispersion_loss, intra_dispersion_loss
from adapters.learning.support_features import feature_ticks
from adapters.learning.support_stems import SupportStems
from adapters.methods.coop import (
    CoOpSettings,
    Penalty,
    Seen,
    anchored,
    check_negatives,
    fit_context,
    fit_ticks,
    in_learnt_context,
    start_context,
)
from adapters.ranges import check_ranges
from adapters.text.chunked import Tick
from adapters.text.layout import Position
from adapters.text.prompted_classes import PromptedClasses

PATCH_AREA = 16 * 16
"""Of the paper's image tower; part of the bound of its uniform start."""

WHERE_POSSIBLE = -1
USUAL_PROMPTS = 4


@dataclass(frozen=True, slots=True)
class DAPTSettings:
    """Without visual prompts and weights of the dispersions this is CoOp. The paper tunes rate and weights for every
    data set, over four decades; here one setting serves all."""

    context: int = 4
    start: Literal["template", "source", "random"] = "template"
    position: Position = "end"
    class_specific: bool = True
    visual_prompts: int = WHERE_POSSIBLE
    """Tokens that join those of the image, after the first norm; with 0 the image tower stays as it is, and -1 takes 4
    where they can enter and 0 where they cannot."""
    steps: int = 60
    learning_rate: float = 2e-2
    visual_learning_rate: float = 2e-3
    weight_decay: float = 0.0
    anchor: float = 0.5
    beta_t: float = 0.1
    """Weight of the inter-dispersion of the class rows."""
    beta_v: float = 0.02
    """Weight of the intra-dispersion per squared distance: the paper's weight over the joint width, 10 / 512 here."""
    t: float = 2.0
    """Sharpness of the inter-dispersion."""
    views: int = 4
    batch: int = 512
    visual_batch: int = 32
    """Images of a step with visual prompts: they pass the image tower with a graph."""
    class_batch: int = 1000
    chunk: int = 64
    heldout: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self, visual_prompts=(WHERE_POSSIBLE, 64), visual_learning_rate=(1e-9, 1), beta_t=(0, 1000),
            beta_v=(0, 1000), t=(1e-3, 100), visual_batch=(1, 4096),
        )  # fmt: skip
        self.text  # noqa: B018  # checks the rest

    @property
    def text(self) -> CoOpSettings:
        """The text side, as CoOp knows it."""
        batch = self.visual_batch if self.visual_prompts else self.batch
        return CoOpSettings(
            context=self.context, start=self.start, position=self.position, class_specific=self.class_specific,
            steps=self.steps, learning_rate=self.learning_rate, weight_decay=self.weight_decay, anchor=self.anchor,
            views=self.views, batch=batch, class_batch=self.class_batch, chunk=self.chunk, heldout=self.heldout,
            seed=self.seed,
        )  # fmt: skip


def prototypes(data: SupportImages, classes: int) -> Tensor:
    """Mean [C, D] of the plain tower's unit features of all views of the images learnt from, not made unit again."""
    train = data.split.train
    rows_ND, labels_N = data.features_NVD[train].mean(dim=1), data.labels_N[train]
    sums_CD = rows_ND.new_zeros(classes, rows_ND.shape[-1]).index_add_(0, labels_N, rows_ND)
    return sums_CD / torch.bincount(labels_N, minlength=classes)[:, None]


def dispersion(settings: DAPTSettings, prototypes_CD: Tensor) -> Penalty:
    """The two dispersion terms; that of the images moves nothing without visual prompts and is left out then."""
    width = prototypes_CD.shape[-1]

    def penalty(seen: Seen) -> Tensor:
        total = seen.rows_cD.new_zeros(())
        if settings.beta_t:
            total = total + settings.beta_t * inter_dispersion_loss(seen.rows_cD, t=settings.t)
        if settings.beta_v and settings.visual_prompts:
            squared = width * intra_dispersion_loss(seen.features_BD, prototypes_CD, seen.labels_B)
            total = total + settings.beta_v * squared
        return total

    return penalty


class ImageSide:
    """Features of the support images, under learnt prompts where there are any."""

    def __init__(
        self, settings: DAPTSettings, backbone: Backbone, support: Support, data: SupportImages, tick: Tick
    ) -> None:
        self._tower, self._data = backbone.image, data
        self.images: Images = data.drawn(settings.seed)
        self.groups: list[dict[str, object]] = []
        self._stems: SupportStems | None = None
        if settings.visual_prompts == 0:
            return
        self._tokens_1PV = start_visual(settings, backbone).requires_grad_()
        self._stems = SupportStems(backbone, support, views=settings.views, seed=settings.seed, tick=tick)
        drawn = self._stems.drawn(settings.seed)
        self.images = lambda rows_B: self._tower.encode_stem(drawn(rows_B), VisualPrompts(self._tokens_1PV))
        self.groups = [{"params": [self._tokens_1PV], "lr": settings.visual_learning_rate}]

    @property
    def extras(self) -> dict[str, Tensor]:
        """What the class state keeps of it."""
        return {} if self._stems is None else {VISUAL_PROMPTS: self._tokens_1PV.detach()}

    def heldout(self) -> Tensor:
        """Features [H, D] of the held-out images as they would be served."""
        held = self._data.split.heldout
        if self._stems is None or len(held) == 0:
            return self._data.features_NVD[held, 0]
        return self._stems.features(held, VisualPrompts(self._tokens_1PV.detach()))


def image_ticks(support: Support, settings: DAPTSettings) -> int:
    """About how often the stems tick."""
    return feature_ticks(len(support), settings.views) if settings.visual_prompts else 0


def start_visual(settings: DAPTSettings, backbone: Backbone) -> Tensor:
    """Prompts [1, P, V], uniform within the paper's bound."""
    generator = torch.Generator().manual_seed(settings.seed)
    width = backbone.image.token_width
    bound = math.sqrt(6 / (3 * PATCH_AREA + width))
    tokens = torch.empty(1, settings.visual_prompts, width).uniform_(-bound, bound, generator=generator)
    return tokens.to(backbone.device)


class DAPT:
    """Serves class weights, and visual prompts where there are any."""

    name = "dapt"

    def __init__(self, settings: DAPTSettings, backbone: Backbone) -> None:
        if settings.visual_prompts == WHERE_POSSIBLE:
            settings = replace(settings, visual_prompts=USUAL_PROMPTS if backbone.image.promptable else 0)
        if settings.visual_prompts and not backbone.image.promptable:
            raise OptionError(
                f"the image tower of {backbone.name} takes no prompts; 0 learns the text side alone",
                field="options.visual_prompts",
            )
        source = backbone.source.version if backbone.source and settings.start == "source" else "none"
        tokens = backbone.image.tokens_version if settings.visual_prompts else ""
        self.settings = settings
        self.version = settings_version(self.name, settings, source, tokens, calibration_version(backbone))

    def needs(self, state: ClassState) -> ImageNeeds:
        return needs_of(state)

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        started, text = time.perf_counter(), self.settings.text
        backbone.text.check(labels)
        check_negatives(labels)
        support = checked_support(support, labels)
        prompts = PromptedClasses(backbone.text, labels, context=text.context, position=text.position, chunk=text.chunk)
        tick = ticker(progress, fit_ticks(support, prompts, text) + image_ticks(support, self.settings))
        data = SupportImages.of(support, backbone, views=text.views, heldout=text.heldout, seed=text.seed, tick=tick)
        plain_CD = plain_rows(labels, backbone)
        side = ImageSide(self.settings, backbone, support, data, tick)
        ctx = start_context(backbone, text, prompts.classes)
        penalties = (anchored(plain_CD, text.anchor), dispersion(self.settings, prototypes(data, prompts.classes)))
        losses = fit_context(
            ctx, prompts, side.images, data, text, logit_scale=backbone.logit_scale,
            penalty=lambda seen: sum((term(seen) for term in penalties), seen.rows_cD.new_zeros(())),
            visual=side.groups, tick=tick,
        )  # fmt: skip
        learnt = Learnt(prompts.rows(ctx.detach(), tick=tick), side.heldout(), losses, started)
        return fitted_state(
            self.name, self.version, learnt, data, backbone,
            plain_CD=plain_CD, extras={"context": ctx.detach(), **side.extras},
        )  # fmt: skip

    def extend(self, state: ClassState, labels: LabelSet, backbone: Backbone) -> ClassState:
        """Other classes in the context that was learnt, without a fit."""
        return in_learnt_context(state, labels, backbone, self.settings.text)
