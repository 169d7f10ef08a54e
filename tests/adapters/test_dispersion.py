"""DAPT's two dispersion losses: known values, exact gradients from blocks, flat memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from adapters.learning import losses
from adapters.learning.losses import inter_dispersion_loss, intra_dispersion_loss


def unit_rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_coinciding_classes_cost_one_and_orthonormal_ones_e_to_the_minus_four() -> None:
    assert inter_dispersion_loss(unit_rows(1, 8).repeat(2, 1)).item() == pytest.approx(1.0, abs=1e-6)
    assert inter_dispersion_loss(torch.eye(2, 8)).item() == pytest.approx(math.exp(-4), rel=1e-6)
    assert inter_dispersion_loss(torch.eye(7)).item() == pytest.approx(math.exp(-4), rel=1e-6)


@pytest.mark.parametrize(("cosine", "value"), [(0.95, 0.82), (0.9, 0.67), (0.8, 0.45), (0.7, 0.30), (0.0, 0.018)])
def test_the_cost_of_a_pair_follows_its_cosine(cosine: float, value: float) -> None:
    pair = torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]])
    assert inter_dispersion_loss(pair).item() == pytest.approx(value, abs=5e-3)


@pytest.mark.parametrize("classes", [2, 5, 11])
def test_blocks_give_the_mean_over_pairs_and_its_gradient(monkeypatch: pytest.MonkeyPatch, classes: int) -> None:
    monkeypatch.setattr(losses, "DISPERSION_ROWS", 4)
    rows = unit_rows(classes, 16).requires_grad_()
    whole = torch.exp(-2 * torch.pdist(rows).square()).mean()
    blocks = inter_dispersion_loss(rows)
    assert blocks.item() == pytest.approx(whole.item(), rel=1e-5)
    (expected,), (found,) = torch.autograd.grad(whole, rows), torch.autograd.grad(blocks, rows)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_single_class_has_no_pair_and_costs_nothing() -> None:
    row = unit_rows(1, 8).requires_grad_()
    loss = inter_dispersion_loss(row)
    loss.backward()
    assert loss.item() == 0
    assert row.grad is not None
    assert not row.grad.any()


def test_half_precision_rows_are_measured_in_single_precision() -> None:
    assert inter_dispersion_loss(unit_rows(6, 32).bfloat16()).dtype == torch.float32


def test_opposite_unit_vectors_are_four_apart_shared_over_the_dimensions() -> None:
    prototypes = unit_rows(3, 512)
    labels = torch.tensor([2, 0])
    assert intra_dispersion_loss(-prototypes[labels], prototypes, labels).item() == pytest.approx(4 / 512, rel=1e-5)
    assert intra_dispersion_loss(prototypes[labels], prototypes, labels).item() == 0
