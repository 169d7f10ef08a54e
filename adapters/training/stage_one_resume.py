"""Where a broken-off stage 1 goes on: all that decides the steps to come, as safetensors, replaced atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of one parameter."""


def moments(optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of the named parameters; empty before the first step."""
    return {
        f"{name}.{part}": optimizer.state[parameter][part].detach().clone()
        for name, parameter in names.items()
        if parameter in optimizer.state
        for part in MOMENTS
    }


def restore_moments(optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    for name, parameter in names.items():
        if f"{name}.{MOMENTS[0]}" in kept:
            optimizer.state[parameter] = {part: kept[f"{name}.{part}"].clone() for part in MOMENTS}


def keep(file: Path, tensors: Mapping[str, Tensor], key: str) -> None:
    """The old file stays whole until the new one is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    safetensors.torch.save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, partial, metadata={"key": key})
    os.replace(partial, file)


def kept(file: Path, key: str) -> dict[str, Tensor] | None:
    """What `keep` wrote for the same run; None for no file, an unreadable one, or one of other settings or data."""
    if not file.is_file():
        return None
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            if (opened.metadata() or {}).get("key") != key:
                return None
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, safetensors.SafetensorError):
        return None
