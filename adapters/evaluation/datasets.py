"""Folder trees `<set>/<class name>/<image>` and their image features, encoded once per backbone.

Tensor suffixes: N images, D joint width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from adapters.clip import Backbone

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Image files with the row of their class."""

    name: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSet:
    """Unit image features [N, D] and class rows [N] of an image set."""

    name: str
    classes: tuple[str, ...]
    features_ND: Tensor
    labels_N: Tensor


def read_folder(root: Path, *, per_class: int | None = None) -> ImageSet:
    """Classes are the sub-folders in alphabetical order. Raises `ValueError` if there is no image."""
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    paths: list[Path] = []
    labels: list[int] = []
    for row, name in enumerate(classes):
        files = sorted(path for path in (root / name).iterdir() if path.suffix.lower() in SUFFIXES)[:per_class]
        paths += files
        labels += [row] * len(files)
    if not paths:
        raise ValueError(f"{root} holds no images in class folders")
    return ImageSet(root.name, classes, tuple(paths), tuple(labels))


def encode(
    images: ImageSet, backbone: Backbone, *, cache: Path | None = None, progress: Callable[[int], None] | None = None
) -> FeatureSet:
    """Features of all images; `progress` is told how many are done. `cache` keeps them by backbone and file list."""
    file = cache / f"{images.name}-{_key(images, backbone)}.safetensors" if cache else None
    if file is not None and file.is_file():
        features_ND = safetensors.torch.load_file(file)["features"]
    else:
        features_ND = torch.cat(list(_batches(images.paths, backbone, progress)))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file({"features": features_ND}, file)
    return FeatureSet(images.name, images.classes, features_ND, torch.tensor(images.labels))


def _batches(paths: Iterable[Path], backbone: Backbone, progress: Callable[[int], None] | None) -> Iterator[Tensor]:
    done, pending = 0, iter(paths)
    while batch := list(islice(pending, 32)):
        pixels = []
        for path in batch:
            with Image.open(path) as image:
                pixels.append(backbone.preprocess.pixels(image))
        yield backbone.image.encode(torch.stack(pixels)).cpu()
        done += len(batch)
        if progress is not None:
            progress(done)


def _key(images: ImageSet, backbone: Backbone) -> str:
    files = "\n".join(f"{path.parent.name}/{path.name}:{path.stat().st_size}" for path in images.paths)
    return hashlib.sha256(f"{backbone.fingerprint}:{backbone.precision}\n{files}".encode()).hexdigest()[:20]
