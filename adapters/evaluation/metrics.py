"""Accuracy and calibration of logits.

Tensor suffixes: N images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True, slots=True)
class Score:
    """Top-1 accuracy and expected calibration error, both in percent, over `images` images."""

    top1: float
    ece: float
    images: int


def score(logits_NC: Tensor, labels_N: Tensor) -> Score:
    confidence_N, predicted_N = logits_NC.softmax(dim=-1).max(dim=-1)
    correct_N = (predicted_N == labels_N).float()
    return Score(100 * correct_N.mean().item(), 100 * calibration_error(confidence_N, correct_N), len(labels_N))


def calibration_error(confidence_N: Tensor, correct_N: Tensor, bins: int = BINS) -> float:
    """Expected calibration error with equal-width bins (arXiv 1706.04599): the mean over images of the gap between
    mean confidence and accuracy in the image's bin. In 0 to 1."""
    bin_N = (confidence_N * bins).long().clamp(max=bins - 1)
    gap_B = torch.zeros(bins).index_add_(0, bin_N, confidence_N.float() - correct_N.float())
    return float(gap_B.abs().sum() / max(len(confidence_N), 1))


def reliability(logits_NC: Tensor, labels_N: Tensor, bins: int = BINS) -> tuple[tuple[float, float, float], ...]:
    """Per bin of confidence: images, sum of their confidences, hits. What a reliability diagram is drawn from; such
    sums of several runs may be added up."""
    confidence_N, predicted_N = logits_NC.softmax(dim=-1).max(dim=-1)
    bin_N = (confidence_N * bins).long().clamp(max=bins - 1)
    correct_N = (predicted_N == labels_N).float()
    sums = [torch.zeros(bins).index_add_(0, bin_N, values_N.float()).tolist()
            for values_N in (torch.ones_like(confidence_N), confidence_N, correct_N)]  # fmt: skip
    return tuple((count, round(confidence, 4), hits) for count, confidence, hits in zip(*sums, strict=True))
