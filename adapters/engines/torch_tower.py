"""The image tower as torch runs it: the reference in fp32, and a copy in bf16."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from adapters.engines.base import Precision, Tower

MATRIX_DIMENSIONS = 4
"""Weights with this many dimensions belong to convolutions."""


class PixelTower(nn.Module):
    """A tower that takes uint8 pixels: normalisation and tower in one module, which is also what is exported."""

    mean: Tensor
    std: Tensor

    def __init__(self, tower: Tower, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.visual = tower.visual if dtype is torch.float32 else copy.deepcopy(tower.visual).to(dtype)
        self.dtype = dtype
        self.register_buffer("mean", torch.tensor(tower.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(tower.std).view(1, -1, 1, 1))

    def forward(self, pixels_B3SS: Tensor) -> Tensor:
        """The same arithmetic as `ImageTower.normalize`, then the tower."""
        images = pixels_B3SS.to(torch.float32).div(255).sub(self.mean).div(self.std)
        features_BD: Tensor = self.visual(images.to(self.dtype))
        return features_BD.float()


class TorchEngine:
    """Runs on the calling thread's number of torch threads."""

    def __init__(self, tower: Tower, precision: Precision) -> None:
        self._module = PixelTower(tower, torch.bfloat16 if precision == "bf16" else torch.float32)
        if any(p.ndim == MATRIX_DIMENSIONS for p in self._module.visual.parameters()):
            self._module.visual.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, pixels_B3SS: Tensor) -> Tensor:
        features_BD: Tensor = self._module(pixels_B3SS)
        return features_BD
