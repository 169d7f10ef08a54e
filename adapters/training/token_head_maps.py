"""Convolutional maps of the source images: the frozen trunk sees every image once, up to its last convolution."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from adapters.training.trunk import extract, list_images
from adapters.training.views import VIEWS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Which images of a set are seen through which view: every `stride`-th from `first`."""

    name: str
    view: str
    seed: int
    first: int = 0
    stride: int = 1


SOURCE_PARTS = (
    Part("imagenet_det200_samples", "plain", 0),
    Part("imagenet_det200_samples", "crop", 1),
    Part("flickr8k", "plain", 0, stride=4),
    Part("tiny_imagenet_train", "plain", 0, stride=4),
    Part("imagenet_det200_samples", "sketch", 4),
    Part("flickr8k", "sketch", 6, first=1, stride=4),
)


@dataclass(frozen=True)
class Maps:
    """Maps [N, F, H, W] before the trunk's last convolution, in half precision, of images of one set, with class
    (folder) and file name of each."""

    name: str
    maps: Tensor
    classes: list[str]
    files: list[str]


class MapStore:
    """Maps of one trunk, kept in the work folder under the hash of its weights. Changes the trunk to bfloat16."""

    def __init__(self, data: Path, work: Path, trunk: nn.Module) -> None:
        self._data, self._work = data, work
        self._key = _weights_hash(trunk)
        self._trunk = cast(Any, trunk).to(torch.bfloat16).to(memory_format=torch.channels_last)

    def source(self) -> list[Maps]:
        """Everything that the head learns from."""
        return [self._maps("source", part) for part in SOURCE_PARTS if (self._data / "source" / part.name).is_dir()]

    def development(self) -> list[Maps]:
        """The sets that settings are chosen on."""
        folders = sorted(path for path in (self._data / "development").iterdir() if path.is_dir())
        return [self._maps("development", Part(folder.name, "plain", 0)) for folder in folders]

    def _maps(self, group: str, part: Part) -> Maps:
        target = self._work / f"maps-{self._key}-{group}-{part.name}-{part.view}-{part.seed}.pt"
        if not target.exists():
            self._work.mkdir(parents=True, exist_ok=True)
            listed = list_images(self._data / group / part.name)[part.first :: part.stride]
            maps = extract(self._encode, [path for path, _ in listed], VIEWS[part.view], part.seed, target.stem)
            record = {"maps": maps, "classes": [name for _, name in listed], "files": [path.name for path, _ in listed]}
            partial = target.with_suffix(".partial")
            torch.save(record, partial)
            partial.rename(target)
        return Maps(part.name, **torch.load(target, weights_only=True, mmap=True))

    def _encode(self, images_BCHW: Tensor) -> Tensor:
        trunk = self._trunk
        maps: Tensor = trunk.blocks(trunk.bn1(trunk.conv_stem(images_BCHW.to(torch.bfloat16))))
        return maps.contiguous()


def _weights_hash(trunk: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(trunk.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
