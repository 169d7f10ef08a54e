"""The image tower of a CLIP model, opened where the methods need to reach in. It equals open_clip's own encoder.

Tensor suffixes: B images, S image side, D joint width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.base import VisualPrompts
from adapters.engines.base import ImageEngine
from adapters.errors import BackboneError
from adapters.vision.sequence import TokenTower, check_prompts


class ImageTower:
    """Pixels to unit image features. Frozen. Where the tower could be opened, learnt prompts join its tokens.

    `closed` is the reason why it could not be. `visual` is the module that alone makes features of normalised images,
    where there is one.
    """

    def __init__(self, encode_image: Callable[[Tensor], Tensor], mean: Sequence[float], std: Sequence[float], *,
                 device: torch.device, dtype: torch.dtype, tokens: TokenTower | None = None,
                 closed: str = "its image tower was not opened", visual: nn.Module | None = None) -> None:  # fmt: skip
        self._encode_image = encode_image
        self._engine: ImageEngine | None = None
        self.kind = str(dtype)
        self.visual = visual
        self._mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, -1, 1, 1)
        self._tokens, self._closed = tokens, closed
        self.device = device
        self.dtype = dtype

    @property
    def promptable(self) -> bool:
        """Whether visual prompts and tokens can be had from this tower."""
        return self._tokens is not None

    @property
    def token_width(self) -> int:
        """Width V of its tokens, 0 without."""
        return self._tokens.token_width if self._tokens is not None else 0

    @property
    def depth(self) -> int:
        """Blocks that prompts can enter, 0 without."""
        return self._tokens.depth if self._tokens is not None else 0

    @property
    def tokens_version(self) -> str:
        """Hash of weights that the token path adds to the open_clip model, "" if it adds none."""
        return self._tokens.version if self._tokens is not None else ""

    def normalize(self, pixels_B3SS: Tensor) -> Tensor:
        """uint8 pixels to the tower's input. The same arithmetic, in the same order, as torchvision's ToTensor and
        Normalize, so that features are bit-equal to open_clip's own transform."""
        x = pixels_B3SS.to(self.device).to(torch.float32).div(255)
        return x.sub(self._mean).div(self._std).to(self.dtype)

    def run_by(self, engine: ImageEngine, kind: str = "") -> ImageTower:
        """The same tower, whose plain passes run in `engine`; whatever takes prompts or gives tokens stays in torch.
        `kind` tells engines apart whose features differ."""
        tower = copy.copy(self)
        tower._engine, tower.kind = engine, kind
        return tower

    @torch.no_grad()
    def encode(self, pixels_B3SS: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] to float32 unit rows [B, D], by the engine if there is one."""
        if self._engine is None:
            return self.encode_reference(pixels_B3SS)
        return F.normalize(self._engine.features(pixels_B3SS), dim=-1)

    @torch.no_grad()
    def encode_reference(self, pixels_B3SS: Tensor) -> Tensor:
        """The same by torch, whatever engine serves: for what is stored, and read by others with other engines."""
        features_BD = self._encode_image(self.normalize(pixels_B3SS))
        return F.normalize(features_BD.float(), dim=-1)

    @torch.no_grad()
    def stem(self, pixels_B3SS: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] to what comes before any prompt, one row per image: worth keeping when the same images
        pass with many prompts. Raises `BackboneError` when the tower is not promptable."""
        return self._opened().stem(self.normalize(pixels_B3SS))

    def encode_stem(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        """Rows of `stem` to float32 unit rows [B, D]; differentiable in the prompts."""
        tokens = self._opened()
        if prompts is not None:
            check_prompts(prompts, images=len(stem), width=tokens.token_width, depth=tokens.depth)
        return F.normalize(tokens.features(stem, prompts).float(), dim=-1)

    @torch.no_grad()
    def encode_prompted(self, pixels_B3SS: Tensor, prompts: VisualPrompts | None) -> Tensor:
        """uint8 [B, 3, S, S] with prompts for all images or one set per image, to float32 unit rows [B, D]."""
        return self.encode_stem(self.stem(pixels_B3SS), prompts)

    @torch.no_grad()
    def stem_tokens(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of `stem` to float32 tokens [B, T, D] of the last block, projected but without the final norm, and
        image features [B, D]; neither normalised, since their lengths weigh in where they are joined."""
        tokens_BTD, features_BD = self._opened().tokens(stem)
        return tokens_BTD.float(), features_BD.float()

    def _opened(self) -> TokenTower:
        if self._tokens is None:
            raise BackboneError(f"this backbone cannot run visual prompts: {self._closed}")
        return self._tokens
