"""Learning the law of calibration on features whose best scales are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from adapters.calibration import Geometry
from adapters.evaluation.datasets import FeatureSet
from adapters.training.calibration import Group, bin_gaps, draw_groups, learn_law, searched


def sampled(classes: int, scale: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and labels drawn from their own softmax at `scale`."""
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.rand(3000, classes, generator=generator)
    return cosines, torch.multinomial((scale * cosines).softmax(dim=-1), 1, generator=generator)[:, 0]


def group(classes: int, scale: float) -> Group:
    cosines, labels = sampled(classes, scale, classes)
    return Group(f"{classes}", (Geometry(math.log(classes), 0.4),), bin_gaps(cosines, labels)[None], len(labels))


def test_a_law_follows_scales_that_grow_with_the_number_of_classes() -> None:
    law = learn_law([group(classes, 6 * classes**0.3) for classes in (2, 5, 10, 30, 100)], "f")
    assert law.count == pytest.approx(0.3, abs=0.06)
    assert law.error < 0.5 * law.constant_error
    assert law.fingerprint == "f"


def test_a_coefficient_that_brings_nothing_stays_zero() -> None:
    law = learn_law([group(classes, 20.0) for classes in (2, 5, 10, 30)], "f")
    assert abs(law.count) < 0.03
    assert law.nearest == 0


def test_groups_are_drawn_for_every_size_and_count_their_images() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(12, 8, generator=generator), dim=-1)
    labels = torch.arange(12).repeat(3)
    data = FeatureSet("toy", tuple("abcdefghijkl"), rows[labels], labels)
    groups = list(draw_groups(data, rows, generator))
    assert [g.name for g in groups] == [f"toy, {n} classes" for n in (2, 5, 10, 12)]
    assert [len(g.seen) for g in groups] == [24, 24, 24, 1]
    assert groups[0].images == 24 * 2 * 3


def test_the_search_finds_the_least_of_a_bowl() -> None:
    found = searched(lambda p: (p[0] - 1) ** 2 + 3 * (p[1] + 0.5) ** 2, [0.0, 0.0], [0.3, 0.3])
    assert found == pytest.approx([1, -0.5], abs=0.05)
