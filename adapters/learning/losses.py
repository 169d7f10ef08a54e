"""Losses of the methods, as pure functions.

Tensor suffixes: B images, C classes, D joint width, V views, P projected width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

DISPERSION_ROWS = 512
"""Rows of the class-by-class matrix that `inter_dispersion_loss` holds at a time."""


def contrastive_prompt_loss(projected_VCP: Tensor, *, temperature: float, owners_C: Tensor | None = None) -> Tensor:
    """Contrastive prompt tuning loss of Self-TPT (arXiv 2408.05775): views of one class are positives, the other
    classes negatives, in the supervised contrastive form (arXiv 2004.11362, L_out): the mean over positive pairs of the
    log-probability of the positive among all other views. The paper leaves form and temperature open. `owners_C` names
    the class of each row where a class has several (aliases); without it every row is a class of its own.
    """
    views, classes = projected_VCP.shape[:2]
    flat = F.normalize(projected_VCP.reshape(views * classes, -1), dim=-1)
    logits = flat @ flat.T / temperature
    own = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    log_probability = logits - logits.masked_fill(own, float("-inf")).logsumexp(dim=1, keepdim=True)
    owners_C = torch.arange(classes) if owners_C is None else owners_C
    label = owners_C.to(flat.device).repeat(views)
    positive = (label[:, None] == label[None, :]) & ~own
    return -(log_probability * positive).sum() / positive.sum()


def gradient_matching_loss(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """1 - cosine of two gradients taken over the same parameters (Self-TPT, Eq. 8)."""
    a = torch.cat([g.flatten() for g in first])
    b = torch.cat([g.flatten() for g in second])
    return 1 - F.cosine_similarity(a, b, dim=0, eps=1e-12)


def smoothed(gradient: Tensor, memory: Tensor | None, *, decay: float) -> Tensor:
    """Exponential moving average of a gradient (Self-TPT, Eq. 7). The past is constant, the present keeps its graph."""
    return gradient if memory is None else decay * memory.detach() + (1 - decay) * gradient


def inter_dispersion_loss(weights_CD: Tensor, *, t: float = 2.0) -> Tensor:
    """DAPT's spread of the classes (arXiv 2309.03406): mean of exp(-t |w_m - w_n|^2) over all pairs m < n, in float32;
    1 where all classes coincide. Zero for a single class, which has no pair. The matrix of pairs is never held at once:
    its blocks are made again for the gradient."""
    rows_CD = weights_CD.float()
    classes = len(rows_CD)
    total = rows_CD.sum() * 0
    for start in range(0, classes - 1, DISPERSION_ROWS):
        stop = min(start + DISPERSION_ROWS, classes)
        total = total + checkpoint(_potential, rows_CD[start:stop], rows_CD[start:], t, use_reentrant=False)
    return total / max(1, classes * (classes - 1) // 2)


def _potential(block_nD: Tensor, onwards_CD: Tensor, t: float) -> Tensor:
    """Sum of exp(-t |a - b|^2) over rows a of the block and the rows b that stand after a."""
    squares_nC = block_nD.square().sum(-1)[:, None] + onwards_CD.square().sum(-1) - 2 * block_nD @ onwards_CD.T
    return torch.exp(-t * squares_nC.clamp(min=0)).triu(diagonal=1).sum()


def intra_dispersion_loss(features_BD: Tensor, prototypes_CD: Tensor, labels_B: Tensor) -> Tensor:
    """DAPT's gathering of the images (arXiv 2309.03406): mean over images and dimensions of the squared distance to the
    prototype of the image's class."""
    return F.mse_loss(features_BD, prototypes_CD[labels_B])
