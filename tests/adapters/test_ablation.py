"""The ablation's rows are all there, differ where they should, and share one law of calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from adapters.base import LabelSet
from adapters.calibration import ScaleLaw
from adapters.clip import Backbone
from adapters.evaluation.ablation import VARIANTS, ablation
from adapters.evaluation.datasets import FeatureSet
from adapters.training.stage_one import StageOneSettings


def test_every_part_has_a_row_and_all_rows_are_calibrated_alike(tiny_backbone: Backbone, tmp_path: Path) -> None:
    images = F.normalize(torch.randn(12, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    data = FeatureSet("toy", ("cat", "dog", "bus"), images, torch.arange(12) % 3)
    backbone = replace(tiny_backbone, law=ScaleLaw(tiny_backbone.fingerprint, 3.0, 0.0, 0.0, 1.0, 100.0))
    quick = StageOneSettings(steps=2, projected_width=8)
    rows = ablation(backbone, data, seeds=(0,), folder=tmp_path, settings=quick)
    assert len(rows) == 10 + len(VARIANTS)
    states = {name: method(LabelSet.of("fox", "owl"), 0) for name, method in rows.items()}
    own = "+ stage 2, backbone's own logit scale"
    assert {state.logit_scale for name, state in states.items() if name != own} == {
        states["single template"].logit_scale
    }
    assert states[own].logit_scale == backbone.logit_scale
    assert not torch.equal(states["+ contrast"].weights, states["+ gradient matching (stage 1)"].weights)
