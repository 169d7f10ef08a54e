"""The logit scale: what it follows from, where it comes from, and who may not use a law."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from adapters.base import LabelSet, Support
from adapters.calibration import (
    Geometry,
    ScaleLaw,
    find_law,
    fitted_scale,
    geometry,
    label_free_scale,
    load_law,
    served_scale,
)
from adapters.clip import Backbone
from adapters.errors import StateError
from adapters.registry import create_adapter

LABELS = LabelSet.of("cat", "dog", "red fox", "teapot", "bus")


def with_law(backbone: Backbone, count: float = 0.1) -> Backbone:
    law = ScaleLaw(backbone.fingerprint, math.log(30), count, 0.0, 5.0, 100.0)
    return replace(backbone, law=law)


def test_the_law_grows_with_its_features_and_stays_within_its_bounds() -> None:
    law = ScaleLaw("f", math.log(30), 0.1, 0.5, 5.0, 50.0)
    usual = law.scale(Geometry(math.log(10), 0.4))
    assert usual == pytest.approx(30)
    assert law.scale(Geometry(math.log(1000), 0.4)) == pytest.approx(30 * 100**0.1)
    assert law.scale(Geometry(math.log(10), 1.0)) > usual
    assert law.scale(Geometry(1e6, 0.4)) == pytest.approx(50)


def test_geometry_is_size_and_mean_nearest_cosine_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    cosines = (rows @ rows.T).fill_diagonal_(-1)
    monkeypatch.setattr("adapters.calibration.SLICE_FLOPS", 2 * rows.numel() * 3)
    seen = geometry(rows)
    assert seen.count == pytest.approx(math.log(7))
    assert seen.nearest == pytest.approx(float(cosines.max(dim=1).values.mean()), abs=1e-6)
    assert geometry(rows[:1]).count == 0


def test_a_fitted_scale_finds_the_temperature_that_made_the_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(4000, 6, generator=generator)
    labels = torch.multinomial((20 * cosines).softmax(dim=-1), 1, generator=generator)[:, 0]
    assert fitted_scale(cosines, labels) == pytest.approx(20, rel=0.15)


def test_a_fit_to_few_separable_images_stays_near_what_was_expected() -> None:
    cosines, labels = torch.tensor([[0.4, 0.1], [0.1, 0.4]]), torch.tensor([0, 1])
    assert fitted_scale(cosines, labels) > 50
    assert 15 < fitted_scale(cosines, labels, expected=20.0) < 40


@pytest.mark.parametrize("method", ["zero-shot", "self-tpt"])
def test_states_say_where_their_scale_comes_from(tiny_backbone: Backbone, method: str) -> None:
    known = with_law(tiny_backbone)
    for backbone, options, source in [
        (tiny_backbone, {}, "backbone"),
        (known, {"calibrated": False}, "backbone"),
        (known, {}, "label-set geometry"),
    ]:
        state = create_adapter(method, backbone, options).adapt(LABELS, backbone)
        assert state.info["logit_scale_from"] == source
        assert (state.logit_scale == backbone.logit_scale) == (source == "backbone")


def test_support_images_set_the_scale_of_methods_that_did_not_learn_from_them(tiny_backbone: Backbone) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10, 3, 32, 32), generator=generator, dtype=torch.uint8)
    support = Support(pixels, torch.arange(10) % 5)
    state = create_adapter("zero-shot", tiny_backbone).adapt(LABELS, tiny_backbone, support)
    assert state.info["logit_scale_from"] == "support"
    cosines = tiny_backbone.image.encode(pixels) @ state.weights.T
    assert state.logit_scale == fitted_scale(cosines, support.labels, expected=tiny_backbone.logit_scale)


def test_a_backbone_without_a_law_keeps_its_own_scale(tiny_backbone: Backbone) -> None:
    rows = F.normalize(torch.eye(4), dim=-1)
    assert label_free_scale(rows, tiny_backbone) == tiny_backbone.logit_scale
    assert served_scale(rows, tiny_backbone).source == "backbone"


def test_another_law_is_another_version(tiny_backbone: Backbone) -> None:
    for method in ("zero-shot", "self-tpt"):
        one, other = with_law(tiny_backbone), with_law(tiny_backbone, count=0.2)
        assert create_adapter(method, one).version != create_adapter(method, other).version


def test_a_law_is_found_by_its_backbone_and_refused_by_another(tiny_backbone: Backbone, tmp_path: Path) -> None:
    law = ScaleLaw(tiny_backbone.fingerprint, 3.4, 0.1, 0.0, 5.0, 100.0)
    law.save(tmp_path / "toy-1")
    assert find_law(tiny_backbone.fingerprint, tmp_path) == law
    assert find_law("0" * 64, tmp_path) is None
    foreign = replace(tiny_backbone, law=replace(law, fingerprint="0" * 64))
    with pytest.raises(StateError, match="belongs to backbone 0000"):
        create_adapter("zero-shot", foreign).adapt(LABELS, foreign)


@pytest.mark.parametrize("change", [{"offset": "x"}, {"lowest": 0.0}, {"count": float("nan")}])
def test_a_law_of_unusable_numbers_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    law = ScaleLaw("f", 3.4, 0.1, 0.0, 5.0, 100.0)
    law.save(tmp_path)
    plain = json.loads((tmp_path / "calibration.json").read_text())
    (tmp_path / "calibration.json").write_text(json.dumps({**plain, **change}))
    with pytest.raises(StateError):
        load_law(tmp_path / "calibration.json")
