"""The figures of the evaluation against hand calculation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from adapters.clip import Backbone
from adapters.evaluation.datasets import encode, read_folder
from adapters.evaluation.metrics import Score, calibration_error, score
from adapters.evaluation.protocol import Result, compare, served
from adapters.evaluation.report import markdown, spread


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    confidence = torch.tensor([0.95, 0.95, 0.55, 0.55])
    correct = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert calibration_error(confidence, correct) == pytest.approx((2 * 0.45 + 2 * 0.45) / 4, abs=1e-6)


def test_score_counts_hits_in_percent() -> None:
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 0.0]])
    assert score(logits, torch.tensor([0, 1, 1, 0])).top1 == pytest.approx(75.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for row, name in enumerate(("cat", "dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (40 + index, 30), (90 * row, 40 * index, 10)).save(
                tmp_path / "set" / name / f"{index}.png"
            )
    return tmp_path / "set"


def test_image_sets_are_read_in_order_and_features_come_from_the_cache(
    tiny_backbone: Backbone, folder: Path, tmp_path: Path
) -> None:
    images = read_folder(folder, per_class=2)
    first = encode(images, tiny_backbone, cache=tmp_path / "cache")
    assert (first.classes, first.labels_N.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    told: list[int] = []
    again = encode(images, tiny_backbone, cache=tmp_path / "cache", progress=told.append)
    assert torch.equal(first.features_ND, again.features_ND)
    assert told == []


def test_a_comparison_has_one_result_per_set_method_and_seed(tiny_backbone: Backbone, folder: Path) -> None:
    data = encode(read_folder(folder), tiny_backbone)
    methods = {"plain": served("zero-shot", tiny_backbone), "tpt": served("self-tpt", tiny_backbone, {"steps": 1})}
    results = list(compare([data], methods, seeds=(0, 1)))
    assert [(r.method, r.seed) for r in results] == [("plain", 0), ("plain", 1), ("tpt", 0), ("tpt", 1)]
    assert all(r.score.images == 6 for r in results)


def test_the_table_shows_mean_and_deviation_over_seeds() -> None:
    results = [Result("m", "s", seed, Score(50 + seed, 5.0, 10), 0.1) for seed in (0, 1, 2)]
    assert "| m | 51.0 ± 1.0 / 5.0 | 51.0 ± 1.0 / 5.0 | 0.10 |" in markdown(results)
    assert spread([2.0, 2.0]) == "2.0"
