"""Losses of the methods, as pure functions.

Tensor suffixes: C classes, V views, P projected width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_prompt_loss(projected_VCP: Tensor, *, temperature: float) -> Tensor:
    """Contrastive prompt tuning loss of Self-TPT (arXiv 2408.05775): views of one class are positives, the other
    classes negatives, in the supervised contrastive form (arXiv 2004.11362, L_out): the mean over anchors of the mean
    log-probability of each positive among all other views. The paper leaves form and temperature open.
    """
    views, classes = projected_VCP.shape[:2]
    flat = F.normalize(projected_VCP.reshape(views * classes, -1), dim=-1)
    logits = flat @ flat.T / temperature
    own = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    log_probability = logits - logits.masked_fill(own, float("-inf")).logsumexp(dim=1, keepdim=True)
    label = torch.arange(classes, device=flat.device).repeat(views)
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
