"""Test-time prompt tuning (TPT, arXiv 2209.07511): the context is tuned for every image on the entropy of its views,
and forgotten after it. The costly baseline that adapting once per label set is compared with, and a cheap cousin of it.

Tensor suffixes: B images, V views, K kept views, N texts, C classes, D joint width, M context tokens, W text width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import ClassState, ImageNeeds, InfoValue, LabelSet, Progress, Support
from adapters.calibration import calibration_version
from adapters.checkpoint import settings_version
from adapters.clip import Backbone
from adapters.learning.class_texts import OwnedTexts, background_row, blend_descriptions, named_texts, ticker
from adapters.methods.zero_shot import ZeroShot, ZeroShotSettings
from adapters.ranges import check_ranges
from adapters.text.chunked import backward_rows, encode_rows
from adapters.text.layout import Position, PromptLayout, lay_out
from adapters.text.templates import CONTEXT_WORDS, PLAIN_TEMPLATE
from adapters.text.tower import TextTower


@dataclass(frozen=True, slots=True)
class TPTSettings:
    """As published, except that `mode` "vote" leaves out the tuning: it averages the probabilities of the confident
    views against fixed class weights, without any text pass."""

    mode: Literal["tune", "vote"] = "tune"
    views: int = 64
    keep: float = 0.1
    """Share of the views that count: those of lowest entropy, at least one."""
    steps: int = 1
    learning_rate: float = 5e-3
    chunk: int = 256
    """Prompts encoded with a graph at a time. Larger label sets cost one more pass, and no more memory."""

    def __post_init__(self) -> None:
        check_ranges(self, views=(1, 512), steps=(0, 100), chunk=(1, 4096))
        if not (0 < self.learning_rate <= 1 and 0 < self.keep <= 1):  # NaN fails both
            raise ValueError("learning_rate and keep must lie in (0, 1]")


def confident(logits_VC: Tensor, *, keep: float) -> Tensor:
    """Places [K] of the views whose predictions have the lowest entropy."""
    log_VC = logits_VC.log_softmax(dim=-1)
    entropy_V = -(log_VC.exp() * log_VC).sum(dim=-1)
    return entropy_V.argsort(stable=True)[: max(1, int(len(entropy_V) * keep))]


def mean_prediction(logits_KC: Tensor) -> Tensor:
    """Logarithm [C] of the views' mean probabilities."""
    return logits_KC.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits_KC))


def marginal_entropy(logits_KC: Tensor) -> Tensor:
    """Entropy of the views' mean prediction: low when they agree on one class."""
    log_C = mean_prediction(logits_KC)
    return -(log_C.exp() * log_C).sum()


def tunable_layout(labels: LabelSet, texts: tuple[str, ...], text: TextTower) -> tuple[Tensor, PromptLayout]:
    """The start of the context [M, W] and the prompts around it. The words before the name in the label set's first
    template are the context, else those after it; without either it is "a photo of a"."""
    before, after = (part.strip() for part in (labels.templates or (PLAIN_TEMPLATE,))[0].split("{}"))
    position: Position = "end" if before or not after else "front"
    context = text.tokens(before or after or CONTEXT_WORDS)
    stop = text.tokens(after) if position == "end" else []
    names = [text.tokens(name) for name in texts]
    layout = lay_out(names, context=len(context), position=position, stop=stop, sot=text.sot, eot=text.eot)
    return text.embed_tokens(context), layout


class ClassPrompts:
    """The prompts of a label set as its state keeps them, encoded to class rows with any context."""

    def __init__(self, extras: Mapping[str, Tensor], text: TextTower, classes: int) -> None:
        self.layout = PromptLayout(extras["prompt_ids"], extras["prompt_slots"], extras["prompt_ends"])
        self._named = OwnedTexts((), tuple(extras["prompt_owners"].tolist()))
        self._described_CD = extras.get("descriptions")
        self._text, self._classes = text, classes

    def encode(self, ctx_MW: Tensor, part: slice) -> Tensor:
        return self._text.encode_prompts(ctx_MW, self.layout.rows(part))

    def class_rows(self, features_ND: Tensor) -> Tensor:
        """Unit rows [C, D]: the mean of a class's names, then of that and its descriptions."""
        rows_CD = self._named.mean_rows(features_ND, self._classes)
        if self._described_CD is None:
            return rows_CD
        return F.normalize(rows_CD + self._described_CD.to(rows_CD.device), dim=-1)


class TPT:
    """Keeps the prompts; the work is done for every image anew."""

    name = "tpt"

    def __init__(self, settings: TPTSettings, backbone: Backbone) -> None:
        self.settings = settings
        self.version = settings_version(self.name, settings, calibration_version(backbone))

    def needs(self, state: ClassState) -> ImageNeeds:
        return ImageNeeds(views=self.settings.views, scored_by=self.name)

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        started = time.perf_counter()
        if self.settings.mode == "vote":
            return self._fixed(labels, backbone, support, progress)
        weights_CD, extras = self._prompts(labels, backbone, progress)
        info = self._info | {"seconds": round(time.perf_counter() - started, 3), "logit_scale_from": "backbone"}
        return ClassState(
            adapter=self.name,
            version=self.version,
            weights=weights_CD,
            background=background_row(backbone.text),
            logit_scale=backbone.logit_scale,
            extras=extras,
            info=info,
        )

    def logits(self, pixels: Tensor, state: ClassState, backbone: Backbone) -> Tensor:
        """For a vote the logarithms of the mean probabilities; after tuning the standard view's scaled cosines."""
        views_BV3SS = pixels if pixels.ndim == 5 else pixels[:, None]
        score = self._tune if self.settings.mode == "tune" else self._vote
        return torch.stack([score(backbone.image.encode(views), state, backbone) for views in views_BV3SS])

    def _vote(self, features_VD: Tensor, state: ClassState, backbone: Backbone) -> Tensor:
        logits_VC = state.logit_scale * features_VD @ state.weights.to(features_VD.device).T
        return mean_prediction(logits_VC[confident(logits_VC, keep=self.settings.keep)])

    def _tune(self, features_VD: Tensor, state: ClassState, backbone: Backbone) -> Tensor:
        """Logits [C] of the first view, with a context tuned on this image alone: everything starts anew."""
        prompts = ClassPrompts(state.extras, backbone.text, len(state.weights))
        first_VC = state.logit_scale * features_VD @ state.weights.to(features_VD.device).T
        kept_KD = features_VD[confident(first_VC, keep=self.settings.keep)]
        ctx_MW = state.extras["context"].to(features_VD.device).clone().requires_grad_()
        optimizer = torch.optim.AdamW([ctx_MW], lr=self.settings.learning_rate)

        def loss(texts_ND: Tensor) -> Tensor:
            return marginal_entropy(state.logit_scale * kept_KD @ prompts.class_rows(texts_ND).T)

        def encode(part: slice) -> Tensor:
            return prompts.encode(ctx_MW, part)

        for _ in range(self.settings.steps):
            optimizer.zero_grad()
            with torch.enable_grad():
                backward_rows(encode, len(prompts.layout), loss, chunk=self.settings.chunk)
            optimizer.step()
        texts_ND = encode_rows(encode, len(prompts.layout), chunk=self.settings.chunk)
        return state.logit_scale * features_VD[0] @ prompts.class_rows(texts_ND).T

    @property
    def _info(self) -> dict[str, InfoValue]:
        return {"mode": self.settings.mode, "views": self.settings.views}

    def _fixed(
        self, labels: LabelSet, backbone: Backbone, support: Support | None, progress: Progress | None
    ) -> ClassState:
        """What plain zero-shot would serve, for the views to vote on."""
        plain = ZeroShot(ZeroShotSettings(), backbone).adapt(labels, backbone, support, progress)
        return replace(plain, adapter=self.name, version=self.version, info={**plain.info, **self._info})

    def _prompts(
        self, labels: LabelSet, backbone: Backbone, progress: Progress | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Class rows at the context's start, and what tuning needs at scoring time."""
        text = backbone.text
        text.check(labels)
        named = named_texts(labels)
        ctx_MW, layout = tunable_layout(labels, named.texts, text)
        chunk = text.slices(layout, held=self.settings.chunk).plain
        tick = ticker(progress, math.ceil(len(named.texts) / chunk))
        extras = {
            "context": ctx_MW,
            "prompt_ids": layout.ids_NL,
            "prompt_slots": layout.slots_NM,
            "prompt_ends": layout.eot_N,
            "prompt_owners": torch.tensor(named.owners),
        }
        none_CD = ctx_MW.new_zeros(len(labels.classes), backbone.embed_dim)
        if any(entry.descriptions for entry in labels.classes):
            extras["descriptions"] = blend_descriptions(none_CD, labels, text, tick)
        prompts = ClassPrompts(extras, text, len(labels.classes))
        texts_ND = encode_rows(lambda part: prompts.encode(ctx_MW, part), len(layout), chunk=chunk, tick=tick)
        return prompts.class_rows(texts_ND), extras
