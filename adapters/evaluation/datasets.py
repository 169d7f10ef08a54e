"""Labelled image files and their image features, encoded once per backbone.

Tensor suffixes: N images, D joint width.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from adapters.clip import Backbone
from adapters.errors import AdapterError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class DataError(AdapterError, ValueError):
    """A folder or split file does not hold the images that were expected of it."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Image files with the row of their class."""

    name: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def take(self, rows: Sequence[int]) -> ImageSet:
        """The chosen images; classes stay."""
        paths, labels = tuple(self.paths[row] for row in rows), tuple(self.labels[row] for row in rows)
        return ImageSet(self.name, self.classes, paths, labels)

    def rows_by_class(self) -> list[list[int]]:
        """Image rows of each class, in file order."""
        rows: list[list[int]] = [[] for _ in self.classes]
        for row, label in enumerate(self.labels):
            rows[label].append(row)
        return rows

    def first(self, per_class: int | None) -> ImageSet:
        """At most `per_class` images of each class: the first ones, so that every method sees the same."""
        if per_class is None:
            return self
        return self.take(sorted(row for rows in self.rows_by_class() for row in rows[:per_class]))

    def drawn(self, shots: int, *, seed: int) -> ImageSet:
        """`shots` images of each class, or all that there are. Draws of one seed are nested: those of 2 shots are
        among those of 4."""
        order = random.Random(seed)
        chosen = [row for rows in self.rows_by_class() for row in order.sample(rows, len(rows))[:shots]]
        return self.take(chosen)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSet:
    """Unit image features [N, D] and class rows [N] of an image set."""

    name: str
    classes: tuple[str, ...]
    features_ND: Tensor
    labels_N: Tensor


def merged(parts: Sequence[FeatureSet], name: str) -> FeatureSet:
    """All images of several sets; classes of the same name are one class."""
    classes = tuple(dict.fromkeys(label for part in parts for label in part.classes))
    place = {label: row for row, label in enumerate(classes)}
    labels = [place[part.classes[int(row)]] for part in parts for row in part.labels_N]
    return FeatureSet(name, classes, torch.cat([part.features_ND for part in parts]), torch.tensor(labels))


def class_folders(root: Path) -> list[Path]:
    """Sub-folders in alphabetical order, hidden ones left out."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def read_folder(root: Path, *, per_class: int | None = None) -> ImageSet:
    """Classes are the sub-folders in alphabetical order. Raises `DataError` if there is no image."""
    folders = class_folders(root)
    paths: list[Path] = []
    labels: list[int] = []
    for row, folder in enumerate(folders):
        files = image_files(folder)[:per_class]
        paths += files
        labels += [row] * len(files)
    if not paths:
        raise DataError(f"{root} holds no images in class folders ({', '.join(sorted(SUFFIXES))})")
    return ImageSet(root.name, tuple(folder.name for folder in folders), tuple(paths), tuple(labels))


def read_pixels(path: Path, backbone: Backbone) -> Tensor:
    """A file to uint8 [3, S, S]. Raises `DataError` for one that is no image."""
    return backbone.preprocess.pixels(open_image(path))


def open_image(path: Path) -> Image.Image:
    """A decoded image. Raises `DataError` for a file that is none."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


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
        yield backbone.image.encode(torch.stack([read_pixels(path, backbone) for path in batch])).cpu()
        done += len(batch)
        if progress is not None:
            progress(done)


def _key(images: ImageSet, backbone: Backbone) -> str:
    files = "\n".join(f"{path.parent.name}/{path.name}:{path.stat().st_size}" for path in images.paths)
    return hashlib.sha256(f"{backbone.fingerprint}:{backbone.precision}\n{files}".encode()).hexdigest()[:20]
