"""What the fits on a few labelled images do alike: cached features, a held-out share, and the figures told about it.

Tensor suffixes: N support images, B images of a step, V views, H held-out images, C classes, D joint width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.base import ClassState, InfoValue, LabelSet, Support
from adapters.calibration import ServedScale, fitted_scale, label_free_scale, served_scale
from adapters.clip import Backbone
from adapters.learning.class_texts import background_row
from adapters.learning.fitting import Split, split_support
from adapters.learning.support_features import support_features
from adapters.methods.zero_shot import ZeroShot, ZeroShotSettings
from adapters.text.chunked import Tick, nothing

Images = Callable[[Tensor], Tensor]
"""Rows [B] of the support to unit features [B, D], with a graph where the image side learns as well."""


@dataclass(frozen=True, slots=True, eq=False)
class SupportImages:
    """Features [N, V, D] of the plain tower, the plain view first; labels [N]; which rows are learnt from."""

    features_NVD: Tensor
    labels_N: Tensor
    split: Split

    @classmethod
    def of(
        cls, support: Support, backbone: Backbone, *, views: int, heldout: float, seed: int, tick: Tick = nothing
    ) -> SupportImages:
        """`views` random crops of each image beside the plain view; the share `heldout` of a class is kept apart."""
        features_NVD = support_features(backbone, support, views=views, seed=seed, tick=tick)
        labels_N = support.labels.to(features_NVD.device)
        return cls(features_NVD, labels_N, split_support(support.labels, fraction=heldout, seed=seed))

    def drawn(self, seed: int) -> Images:
        """Features of one view per image, drawn anew at each call."""
        generator = torch.Generator().manual_seed(seed)

        def images(rows_B: Tensor) -> Tensor:
            views_B = torch.randint(self.features_NVD.shape[1], rows_B.shape, generator=generator)
            return self.features_NVD[rows_B, views_B]

        return images


def heldout_info(heldout: Tensor, labels_N: Tensor, logits_HC: Tensor, plain_HC: Tensor) -> dict[str, InfoValue]:
    """Shares of held-out images that the adapted and the plain zero-shot scores get right; nothing without any."""
    info: dict[str, InfoValue] = {"support_images": len(labels_N), "heldout_images": len(heldout)}
    if len(heldout) > 0:
        labels_H = labels_N[heldout].to(logits_HC.device)
        info["heldout_top1"] = _top1(logits_HC, labels_H)
        info["heldout_top1_zero_shot"] = _top1(plain_HC, labels_H)
    return info


def heldout_scale(cosines_HC: Tensor, labels_H: Tensor, weights_CD: Tensor, backbone: Backbone) -> ServedScale:
    """Fitted to the held-out images; what the backbone expects of such class rows where there are none."""
    if len(labels_H) == 0:
        return served_scale(weights_CD, backbone)
    expected = label_free_scale(weights_CD, backbone)
    return ServedScale(fitted_scale(cosines_HC.cpu(), labels_H.cpu(), expected=expected), "support")


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What a fit ended with: rows [C, D] to serve, features [H, D] of the held-out images under its image side, the
    loss of each step, and when it began (`time.perf_counter`)."""

    weights_CD: Tensor
    heldout_HD: Tensor
    losses: Sequence[float]
    started: float


def fitted_state(
    name: str, version: str, learnt: Learnt, data: SupportImages, backbone: Backbone,
    *, plain_CD: Tensor, extras: Mapping[str, Tensor],
) -> ClassState:  # fmt: skip
    """The state to serve: its scale and figures come from the held-out images, beside those of the plain rows."""
    held = data.split.heldout
    cosines_HC = learnt.heldout_HD @ learnt.weights_CD.T
    plain_HC = data.features_NVD[held, 0] @ plain_CD.T
    scale = heldout_scale(cosines_HC, data.labels_N[held], learnt.weights_CD, backbone)
    info = heldout_info(held, data.labels_N, cosines_HC, plain_HC) | scale.info
    if learnt.losses:
        info |= {"loss_first": learnt.losses[0], "loss_last": learnt.losses[-1]}
    seconds = round(time.perf_counter() - learnt.started, 3)
    return ClassState(
        adapter=name,
        version=version,
        weights=learnt.weights_CD,
        background=background_row(backbone.text),
        logit_scale=scale.scale,
        extras=extras,
        info={**info, "steps": len(learnt.losses), "seconds": seconds},
    )


def plain_rows(labels: LabelSet, backbone: Backbone) -> Tensor:
    """The unit rows [C, D] that plain zero-shot would serve."""
    return ZeroShot(ZeroShotSettings()).adapt(labels, backbone).weights


def _top1(logits_HC: Tensor, labels_H: Tensor) -> float:
    return round(float((logits_HC.argmax(dim=-1) == labels_H).float().mean()), 4)
