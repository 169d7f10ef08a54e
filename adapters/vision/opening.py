"""Chooses how an image tower is opened, or says why it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.errors import BackboneError
from adapters.vision.hybrid import HybridTokens
from adapters.vision.native import NativeTokens
from adapters.vision.sequence import TokenTower
from adapters.vision.token_head import WEIGHTS_FILE, load_head
from adapters.vision.trunk import TrunkTokens

NATIVE_PARTS = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer", "ln_post", "proj")


def open_tokens(visual: Any, *, folder: Path | None = None, fingerprint: str = "") -> TokenTower:
    """The token path of an image tower; `folder` may hold a token head for a backbone of this fingerprint.

    Raises `BackboneError` with the reason when no prompt can enter the tower.
    """
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and _is_vision_transformer(trunk):
        return TrunkTokens(visual)
    if trunk is not None and folder is not None and (folder / WEIGHTS_FILE).exists():
        return HybridTokens(visual, *load_head(folder, backbone=fingerprint))
    if trunk is not None:
        raise BackboneError(f"its image tower, timm's {type(trunk).__name__}, has no tokens that prompts could join")
    if all(hasattr(visual, part) for part in NATIVE_PARTS):
        return NativeTokens(visual)
    raise BackboneError(f"its image tower, {type(visual).__name__}, is not a vision transformer")


def _is_vision_transformer(trunk: Any) -> bool:
    """timm's plain one: what derives from it changes the forward pass."""
    return type(trunk).__name__ == "VisionTransformer" and type(trunk).__module__.startswith("timm.")
