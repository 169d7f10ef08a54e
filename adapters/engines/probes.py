"""Images and class names that an engine is checked with: a few photos that come with the package, cropped at random,
and the classes of many small label sets drawn from everyday names.

Tensor suffixes: P probes, S image side, N names, D joint width.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from adapters.clip import Backbone

PHOTOS = Path(__file__).parent / "photos"
TEMPLATE = "a photo of a {}."
LABEL_SETS, CLASSES = 100, 10
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    pixels_P3SS: Tensor
    classes_ND: Tensor

    @classmethod
    def of(cls, backbone: Backbone, count: int) -> Probes:
        """`count` images, spread over the photos; the first of each photo is the whole of it."""
        photos = sorted(PHOTOS.glob("*.jpg"))
        each = -(-count // len(photos))
        views = [backbone.preprocess.views(_opened(photo), each, seed=_SEED) for photo in photos]
        pixels_P3SS = torch.stack(views, dim=1).flatten(0, 1)[:count]
        encoded = backbone.text.prompts_encoded
        names = (PHOTOS / "names.txt").read_text(encoding="utf-8").split()
        classes_ND = backbone.text.encode_texts([TEMPLATE.format(name) for name in names]).cpu()
        backbone.text.prompts_encoded = encoded  # these prompts served nobody
        return cls(pixels_P3SS, classes_ND)

    def agreement(self, reference_PD: Tensor, other_PD: Tensor) -> float:
        """How often both give the same best class: every image with all names and with each small label set."""
        logits_PN, others_PN = reference_PD @ self.classes_ND.T, other_PD @ self.classes_ND.T
        same = [logits_PN.argmax(1) == others_PN.argmax(1)]
        for drawn in label_sets(len(self.classes_ND)):
            same.append(logits_PN[:, drawn].argmax(1) == others_PN[:, drawn].argmax(1))
        return float(torch.cat(same).float().mean())


def label_sets(names: int) -> Iterator[list[int]]:
    draw = random.Random(_SEED)
    return (draw.sample(range(names), CLASSES) for _ in range(LABEL_SETS))


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
