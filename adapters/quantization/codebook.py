"""Scalar codebooks of 1 to 8 bits by 1-D k-means on normalised weights (Quantized Prompt, arXiv 2407.10704).

Tensor suffixes: K levels, N scalars, P points that k-means sees (the scalars, or the filled bins of their histogram).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_BITS = 8
ITERATIONS = 100
BINS, MANY = 4096, 65536
"""Tensors of more than `MANY` scalars are clustered by a histogram of `BINS` bins."""

_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Ascending levels [K] float64, K = 2 ** bits at most, and the normalisation of the weights they were made for."""

    levels_K: Tensor
    mean: float = 0.0
    deviation: float = 1.0

    @property
    def folded_K(self) -> Tensor:
        """The levels in the units of the weights, [K] float64."""
        return self.levels_K * self.deviation + self.mean


def check_bits(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must lie in 1 to {MAX_BITS}, not {bits}")


def moments(weights: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all scalars; the deviation of a constant is 1."""
    flat_N = weights.detach().double().flatten()
    deviation = float(flat_N.std(correction=0))
    return float(flat_N.mean()), deviation if deviation > _TINY else 1.0


def fit_codebook(weights: Tensor, bits: int) -> Codebook:
    """K-means on the normalised scalars, whatever their shape. Nothing in it is left to chance. Weights of no more than
    2 ** bits distinct values keep these exactly. Raises `ValueError` for weights that are empty or not finite."""
    check_bits(bits)
    if weights.numel() == 0 or not bool(weights.isfinite().all()):
        raise ValueError("only finite weights, at least one, can be quantised")
    mean, deviation = moments(weights)
    flat_N = weights.detach().double().cpu().flatten().sort().values
    values_P, counts_P = flat_N.unique_consecutive(return_counts=True)
    normal_P = (values_P - mean) / deviation
    if len(values_P) <= 2**bits:
        return Codebook(normal_P, mean, deviation)
    if flat_N.numel() > MANY:
        normal_P, counts_P = _histogram(normal_P, counts_P)
    return Codebook(_cluster(normal_P, counts_P.double(), 2**bits), mean, deviation)


def quantize(weights: Tensor, codebook: Codebook) -> Tensor:
    """Row of the nearest level of each scalar, int64 in the shape of the weights."""
    levels_K = codebook.folded_K.to(weights.device)
    return torch.bucketize(weights.detach().double(), (levels_K[1:] + levels_K[:-1]) / 2)


def dequantize(indices: Tensor, codebook: Codebook) -> Tensor:
    """Float32 weights in the shape of the indices."""
    return codebook.folded_K.float().to(indices.device)[indices]


def _histogram(values_P: Tensor, counts_P: Tensor) -> tuple[Tensor, Tensor]:
    """Means and counts of the filled bins; `values_P` ascends."""
    low, high = values_P[0], values_P[-1]
    bins_P = ((values_P - low) / (high - low) * BINS).long().clamp(max=BINS - 1)
    counts = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins_P, counts_P.double())
    sums = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins_P, values_P * counts_P)
    filled = counts > 0
    return sums[filled] / counts[filled], counts[filled]


def _cluster(points_P: Tensor, counts_P: Tensor, levels: int) -> Tensor:
    """Ascending levels [K] of weighted ascending points: the better of two starts. Quantiles suit few levels; with
    many they leave the tails too coarse, and even steps do better."""
    mass_P = counts_P.cumsum(0)
    zero = mass_P.new_zeros(1)
    mass, moment = torch.cat([zero, mass_P]), torch.cat([zero, (points_P * counts_P).cumsum(0)])
    shares_K = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    quantiles_K = points_P[torch.searchsorted(mass_P, shares_K * mass_P[-1]).clamp(max=len(points_P) - 1)]
    even_K = points_P[0] + shares_K * (points_P[-1] - points_P[0])
    tried = [_lloyd(points_P, mass, moment, start_K) for start_K in (quantiles_K, even_K)]
    return max(tried, key=lambda result: result[1])[0]


def _lloyd(points_P: Tensor, mass: Tensor, moment: Tensor, levels_K: Tensor) -> tuple[Tensor, float]:
    """Levels and the variance between clusters, which is the larger the smaller the error. On a line a cluster is a
    run of neighbours, so that its mean is a difference of running sums (`mass`, `moment`, each with a leading zero):
    an iteration costs K searches, whatever the number of points."""
    between = 0.0
    for _ in range(ITERATIONS):
        inner = torch.searchsorted(points_P, (levels_K[1:] + levels_K[:-1]) / 2)
        edges = torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(points_P))])
        filled_K, sums_K = mass[edges].diff(), moment[edges].diff()
        means_K = sums_K / filled_K.clamp(min=_TINY)
        between = float((sums_K * means_K).sum())
        moved_K = torch.where(filled_K > 0, means_K, levels_K).sort().values  # an empty cluster stays where it is
        if torch.equal(moved_K, levels_K):
            break
        levels_K = moved_K
    return levels_K, between
