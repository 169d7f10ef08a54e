"""The closed-form targets: kernel ridge regression, joined kernels and the taxonomy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.training.teacher import (
    RIDGE,
    Teacher,
    _principal_components,
    build_teacher,
    concatenate,
    kernel_ridge,
    taxonomy,
)
from adapters.training.wordnet import WordNet


def units(count: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_kernel_ridge_equals_a_direct_solve_with_the_gaussian_kernel() -> None:
    points, queries, values = units(12, 5, 0), units(7, 5, 1), units(12, 3, 2)
    gram = torch.exp(-1.5 * torch.cdist(points, points) ** 2) + RIDGE * torch.eye(12)
    direct = torch.exp(-1.5 * torch.cdist(queries, points) ** 2) @ torch.linalg.inv(gram) @ values
    assert torch.allclose(kernel_ridge(points, values, queries, 1.5), direct, atol=1e-4)


def test_a_point_of_weight_two_counts_like_two_observations() -> None:
    points, queries, values = units(6, 5, 0), units(4, 5, 1), units(6, 3, 2)
    weights = torch.tensor([2.0, 1, 1, 1, 1, 1])
    twice = kernel_ridge(torch.cat([points, points[:1]]), torch.cat([values, values[:1]]), queries, 1.0)
    assert torch.allclose(kernel_ridge(points, values, queries, 1.0, weights), twice, atol=1e-5)
    assert not torch.allclose(kernel_ridge(points, values, queries, 1.0), twice, atol=1e-3)


def test_concatenated_parts_average_their_inner_products() -> None:
    one, two = units(6, 4, 0), units(6, 9, 1)
    joined = concatenate((0.25, 0.75), (one, two))
    assert torch.allclose(joined @ joined.T, 0.25 * one @ one.T + 0.75 * two @ two.T, atol=1e-6)


def test_taxonomy_rates_siblings_by_the_information_of_what_they_share(wordnet: WordNet) -> None:
    dog, turtle, man = taxonomy(wordnet, ["00000003", "00000008", "00000006"], ["00000003", "00000008"])
    animal, own_dog, own_turtle = math.log(11 / 5), math.log(11 / 2), math.log(11 / 1)
    expected = animal / math.sqrt((animal + own_dog) * (animal + own_turtle))
    assert float(dog @ turtle) == pytest.approx(expected, abs=1e-5)
    assert float(dog @ dog) == pytest.approx(1.0, abs=1e-5)
    assert float(dog @ man) == 0.0


def test_what_lies_outside_the_reference_lowers_the_similarity(wordnet: WordNet) -> None:
    dog, puppy, nothing = taxonomy(wordnet, ["00000003", "00000004", None], ["00000003"])
    assert float(puppy.norm()) < 0.99 * float(dog.norm())
    assert float(nothing.norm()) == 0.0


def test_principal_components_lead_with_the_variance_of_the_rows_they_are_fitted_on() -> None:
    vectors = units(40, 5, 0) * torch.tensor([1.0, 5.0, 2.0, 0.5, 3.0])
    fit_on = torch.arange(30)
    parts = _principal_components(vectors, fit_on)
    assert torch.allclose(parts[:30].mean(0), torch.zeros(5), atol=1e-5)
    assert (parts[:30].var(0).diff() < 0).all()
    centred = vectors - vectors[fit_on].mean(0)
    assert torch.allclose(parts @ parts.T, centred @ centred.T, atol=1e-4)


def test_targets_of_an_earlier_run_are_loaded(tmp_path: Path, wordnet: WordNet) -> None:
    torch.save(vars(Teacher(units(3, 4, 0), units(3, 6, 1))), tmp_path / "teacher.pt")
    teacher = build_teacher(tmp_path / "no-data", tmp_path, [], wordnet)
    assert torch.equal(teacher.rows, units(3, 6, 1))
