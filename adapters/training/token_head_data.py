"""What the token head learns from: maps in batches, the texts they are compared with, and the plain path's answers.

Tensor suffixes: B images, F map channels, C class names of all sets, K captions, D joint width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.clip import Backbone
from adapters.training.corpus import read_captions
from adapters.training.evaluate import SINGLE_TEMPLATE
from adapters.training.token_head_maps import Maps

CAPTIONED = "flickr8k"
NOTHING = -1
"""Row of the class or the caption of an image that has none."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Maps behind the last convolution [B, F, H, W], the plain path's unit features [B, D], the class row [B] with
    the range of rows it competes with [B, 2], and the caption row [B]."""

    maps: Tensor
    plain: Tensor
    classes: Tensor
    ranges: Tensor
    captions: Tensor


class MapEnd:
    """The frozen end of the plain path: last convolution, pooling, projection. In float32; maps come in bfloat16."""

    def __init__(self, visual: nn.Module) -> None:
        self._visual = visual

    @torch.no_grad()
    def __call__(self, early_BEHW: Tensor) -> tuple[Tensor, Tensor]:
        """Maps before the last convolution to those behind it and to the plain unit features."""
        trunk = self._visual.trunk
        with torch.autocast("cpu", torch.bfloat16):
            maps_BFHW: Tensor = trunk.bn2(trunk.conv_head(early_BEHW.float()))  # type: ignore[operator,union-attr]
        maps_BFHW = maps_BFHW.float()
        plain_BD = self._visual.head(maps_BFHW.mean((2, 3)))  # type: ignore[operator]
        return maps_BFHW, F.normalize(plain_BD, dim=-1)


class SourceImages:
    """All source maps as one numbered list, with the text features of their class names [C, D] and captions [K, D]."""

    def __init__(self, parts: list[Maps], data: Path, backbone: Backbone) -> None:
        self._parts = parts
        self._number = torch.cat([torch.full((len(part.files),), index) for index, part in enumerate(parts)])
        self._row = torch.cat([torch.arange(len(part.files)) for part in parts])
        spoken = _first_captions(data)
        names: list[str] = []
        rows: list[int] = []
        ranges: list[tuple[int, int]] = []
        captions: list[int] = []
        first_of: dict[str, int] = {}  # one set is seen through several views
        for part in parts:
            photographs = part.name == CAPTIONED
            own = [] if photographs else sorted(set(part.classes))
            first = first_of.setdefault(part.name, len(names))
            names += own if first == len(names) else []
            rows += [NOTHING if photographs else first + own.index(name) for name in part.classes]
            ranges += [(first, first + len(own))] * len(part.files)
            captions += [spoken[file][0] if photographs and file in spoken else NOTHING for file in part.files]
        self._classes, self._ranges, self._captions = map(torch.tensor, (rows, ranges, captions))
        self.class_texts = class_texts(backbone, names)
        told = [text for _, text in spoken.values()]
        self.caption_texts = backbone.text.encode_texts(told) if told else torch.empty(0, backbone.embed_dim)

    def __len__(self) -> int:
        return len(self._row)

    def batch(self, images: Tensor, end: MapEnd) -> Batch:
        """The images of these numbers, in this order."""
        first = self._parts[0].maps
        early = first.new_empty(len(images), *first.shape[1:])
        for number in self._number[images].unique().tolist():
            here = self._number[images] == number
            early[here] = self._parts[number].maps[self._row[images[here]]]
        maps, plain = end(early)
        return Batch(maps, plain, self._classes[images], self._ranges[images], self._captions[images])

    def order(self, epoch: int, seed: int) -> Tensor:
        """All numbers, shuffled."""
        return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(self)))


def class_texts(backbone: Backbone, names: list[str]) -> Tensor:
    """Zero-shot class features [C, D] with one template."""
    return backbone.text.encode_texts([SINGLE_TEMPLATE.format(name) for name in names])


def _first_captions(data: Path) -> dict[str, tuple[int, str]]:
    """Row and text of the first caption of each photograph outside the test split, by file name."""
    if not (data / "source" / "flickr8k" / "captions.tsv").exists():
        return {}
    told = [(file, text) for file, index, text in read_captions(data) if index == 0]
    return {file: (row, text) for row, (file, text) in enumerate(told)}
