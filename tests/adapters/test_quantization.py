"""Codebooks, packed bytes and the straight-through quantiser (arXiv 2407.10704)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adapters.errors import StateError
from adapters.quantization.codebook import BINS, MANY, fit_codebook
from adapters.quantization.quantizer import (
    StraightThrough,
    dequantize,
    divergence,
    pack,
    payload_bytes,
    quantize,
    unpack,
)

BITS = st.integers(1, 8)
WEIGHTS = st.lists(st.floats(-70000, 70000, width=32), min_size=1, max_size=90)


def gaussian(count: int, *, scale: float = 0.02, seed: int = 0) -> Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed)) + 0.003


def relative_error(weights: Tensor, bits: int) -> float:
    codebook = fit_codebook(weights, bits)
    back = dequantize(quantize(weights, codebook), codebook)
    return float((back - weights).square().mean().sqrt() / weights.std())


@given(WEIGHTS, BITS)
def test_packing_what_was_unpacked_gives_the_same_bytes(values: list[float], bits: int) -> None:
    packed = pack(torch.tensor(values), bits)
    assert pack(unpack(packed), bits) == packed


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 40), BITS)
def test_shape_survives_and_a_second_trip_changes_nothing(seed: int, rows: int, columns: int, bits: int) -> None:
    once = unpack(pack(gaussian(rows * columns, seed=seed).view(rows, 1, columns), bits))
    assert once.shape == (rows, 1, columns)
    assert torch.equal(unpack(pack(once, bits)), once)


@given(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 3.0]), min_size=1, max_size=50))
def test_four_values_survive_two_bits_exactly(values: list[float]) -> None:
    assert torch.equal(unpack(pack(torch.tensor(values), 2)), torch.tensor(values))


@pytest.mark.parametrize(("bits", "error"), [(1, 0.603), (2, 0.343), (4, 0.097), (8, 0.009)])
@pytest.mark.parametrize("count", [20_000, 200_000])
def test_error_on_a_gaussian_is_that_of_the_best_scalar_quantiser(count: int, bits: int, error: float) -> None:
    assert relative_error(gaussian(count), bits) == pytest.approx(error, rel=0.25)


def test_the_histogram_of_a_large_tensor_costs_little_precision() -> None:
    weights = gaussian(MANY + 1)
    exact = fit_codebook(weights[:MANY], 3).folded_K
    assert torch.allclose(fit_codebook(weights, 3).folded_K, exact, atol=10 * 0.02 * 8 / BINS)


def test_2048_scalars_at_one_bit_take_260_bytes_and_a_short_header() -> None:
    assert payload_bytes(2048, 1) == 260
    assert payload_bytes(3_548_160, 4) == 1_774_080 + 32
    assert len(pack(gaussian(2048).view(4, 512), 1)) == 260 + 20


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_byte_is_always_noticed(seed: int, place: int, flip: int) -> None:
    data = bytearray(pack(gaussian(60, seed=seed), 1 + seed % 8))
    data[place % len(data)] ^= flip
    with pytest.raises(StateError):
        unpack(bytes(data))


def test_truncated_longer_and_foreign_bytes_are_refused() -> None:
    data = pack(gaussian(60).view(6, 10), 3)
    for bad in (b"", data[:3], data[:-1], data + b"\0", b"x" * len(data), data[4:]):
        with pytest.raises(StateError):
            unpack(bad)


def test_weights_without_a_codebook_are_refused() -> None:
    for weights, bits in [
        (torch.empty(0), 2),
        (torch.tensor([1.0, float("nan")]), 2),
        (torch.ones(3), 0),
        (torch.ones(3), 9),
    ]:
        with pytest.raises(ValueError, match=r"bits must lie|finite weights"):
            pack(weights, bits)


def test_the_gradient_passes_as_the_identity() -> None:
    weights = gaussian(64).view(4, 16).requires_grad_()
    upstream = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    quantised = StraightThrough(2)(weights)
    (quantised * upstream).sum().backward()
    assert torch.equal(weights.grad, upstream) if weights.grad is not None else False
    assert len(quantised.unique()) == 4


def test_what_the_forward_pass_saw_is_what_is_packed() -> None:
    weights, through = gaussian(512), StraightThrough(3)
    seen = through(weights)
    assert torch.allclose(unpack(pack(weights, 3, through.codebook)), seen, atol=1e-4)


def test_levels_are_made_anew_only_after_the_interval_and_a_drift() -> None:
    through = StraightThrough(2, interval=3, threshold=0.05)
    through(gaussian(4000))
    for seed in range(1, 9):  # the same distribution again and again: no drift
        through(gaussian(4000, seed=seed))
    assert through.clusterings == 1
    heavy = gaussian(4000).pow(3)
    through(heavy)
    assert through.clusterings == 2
    through(gaussian(4000))  # drifted back, but within the interval
    assert through.clusterings == 2


def test_chunks_of_one_step_count_once_and_see_the_same_levels() -> None:
    through, weights = StraightThrough(2, interval=2, threshold=-1.0), gaussian(100)
    first = through(weights)
    assert all(torch.equal(through(weights.clone()), first) for _ in range(5))
    assert through.clusterings == 1


def test_mean_and_deviation_follow_the_weights_between_clusterings() -> None:
    through, weights = StraightThrough(2, interval=100), gaussian(1000)
    first = through(weights)
    assert torch.allclose(through(3 * weights + 1), 3 * first + 1, atol=1e-5)
    assert through.clusterings == 1


def test_a_histogram_has_no_divergence_from_itself() -> None:
    counts = torch.tensor([3, 0, 5, 9])
    assert divergence(counts, counts) == 0
    assert 0 < divergence(counts, torch.tensor([3, 5, 0, 9])) < 10
