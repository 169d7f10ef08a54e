"""Stage 1 from start to end: source images in, source prompts for one backbone out. This is `selftpt train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from adapters.checkpoint import SourcePrompts
from adapters.clip import Backbone
from adapters.errors import BackboneError
from adapters.evaluation.datasets import FeatureSet, encode, read_folder
from adapters.training.stage_one import Report, StageOne, StageOneSettings

SOURCE_SETS = ("tiny_imagenet_train", "imagenet_det200_samples")
"""Folders below `--data` that are used when they are there; otherwise the folder itself is read as one image set."""

SHOTS = 16
"""Images per class and set (the 16-shot protocol of CoOp, arXiv 2109.01134)."""


def source_features(
    data: Path, backbone: Backbone, *, cache: Path | None = None, progress: Callable[[int], None] | None = None
) -> FeatureSet:
    """Image features of all source sets under `data`; classes of the same name are one class."""
    roots = [data / name for name in SOURCE_SETS if (data / name).is_dir()] or [data]
    parts = [encode(read_folder(root, per_class=SHOTS), backbone, cache=cache, progress=progress) for root in roots]
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    place = {name: row for row, name in enumerate(classes)}
    labels = [place[part.classes[int(row)]] for part in parts for row in part.labels_N]
    return FeatureSet("source", classes, torch.cat([part.features_ND for part in parts]), torch.tensor(labels))


def class_mean(features: FeatureSet) -> Tensor:
    """Mean [D] over classes of the mean image feature of each, so that large classes do not weigh more."""
    classes = int(features.labels_N.max()) + 1
    sums_CD = features.features_ND.new_zeros(classes, features.features_ND.shape[-1])
    sums_CD.index_add_(0, features.labels_N, features.features_ND)
    counts_C = torch.bincount(features.labels_N, minlength=classes)
    return (sums_CD[counts_C > 0] / counts_C[counts_C > 0, None]).mean(dim=0)


def train_source_prompts(
    backbone: Backbone,
    features: FeatureSet,
    settings: StageOneSettings,
    *,
    name: str,
    report: Report | None = None,
    resume: Path | None = None,
) -> SourcePrompts:
    """Runs stage 1, from where the file `resume` says that an equal run broke off. Minutes on two CPU cores for the
    bundled backbone. Raises `BackboneError` if the backbone's text tower cannot learn prompts or the losses became
    non-finite."""
    if not backbone.text.promptable:
        raise BackboneError(f"backbone {backbone.name} cannot learn prompts: its text tower is not a causal CLIP tower")
    stage = StageOne(backbone, features, settings)
    stage.run(report, file=resume)
    if not bool(stage.ctx_MW.isfinite().all()):
        raise BackboneError("stage 1 diverged: the context is not finite; lower the learning rate")
    return SourcePrompts(
        name=name,
        fingerprint=backbone.fingerprint,
        ctx_MW=stage.ctx_MW.detach().cpu(),
        head={"weight": stage.head_PD.detach().cpu()},
        settings={**asdict(settings), "classes": len(features.classes), "images": len(features.labels_N)},
        image_mean_D=class_mean(features),
    )
