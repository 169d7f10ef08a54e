"""The eleven standard sets of the prompt-learning papers, and four shifted ImageNets, as their authors laid them out on
disk: where the images lie, which file splits them, and the usual template of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.evaluation.datasets import DataError, ImageSet, class_folders, image_files
from adapters.text.templates import PLAIN_TEMPLATE


@dataclass(frozen=True, slots=True)
class Standard:
    """`images` is the folder that the paths of the split file `split_zhou_<name>.json` begin in."""

    name: str
    images: str
    template: str = PLAIN_TEMPLATE


SPLIT_FILES = "split_zhou_*.json"
STANDARD = {
    entry.name: entry
    for entry in (
        Standard("Caltech101", "101_ObjectCategories"),
        Standard("OxfordPets", "images", "a photo of a {}, a type of pet."),
        Standard("StanfordCars", "."),
        Standard("OxfordFlowers", "jpg", "a photo of a {}, a type of flower."),
        Standard("Food101", "images", "a photo of {}, a type of food."),
        Standard("FGVCAircraft", "images", "a photo of a {}, a type of aircraft."),
        Standard("SUN397", "SUN397"),
        Standard("DescribableTextures", "images", "{} texture."),
        Standard("EuroSAT", "2750", "a centered satellite photo of {}."),
        Standard("UCF101", "UCF-101-midframes", "a photo of a person doing {}."),
        Standard("ImageNet", "images"),
    )
}
SHIFTED_IMAGENETS = ("imagenetv2-matched-frequency-format-val", "imagenet-a", "imagenet-r", "images")
"""Folder of class folders beside `classnames.txt`: of ImageNet-V2, -A, -R and -Sketch."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Images to learn from (none for a set that is only tested on) and to test on. A validation part is left alone:
    nothing here selects by it."""

    name: str
    train: ImageSet | None
    test: ImageSet
    template: str


def read_standard(root: Path) -> Parts | None:
    """The standard set that lies in this folder, or None."""
    splits = sorted(root.glob(SPLIT_FILES))
    if splits:
        return _by_split_file(root, splits[0])
    if (root / "variants.txt").is_file() and (root / "images_variant_test.txt").is_file():
        return _aircraft(root)
    if (root / "classnames.txt").is_file():
        return _imagenet(root)
    return None


def _by_split_file(root: Path, file: Path) -> Parts:
    name = file.stem.removeprefix("split_zhou_")
    known = STANDARD.get(name, Standard(name, "."))
    folder = root / known.images if (root / known.images).is_dir() else root
    try:
        split: dict[str, list[Any]] = json.loads(file.read_text(encoding="utf-8"))
        entries = {part: [(folder / str(p), int(label), str(c)) for p, label, c in split[part]]
                   for part in ("train", "test")}  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is no split file: {{train, val, test: [[path, label, class], ...]}} expected ({error})"
        ) from error
    names = {label: class_name for part in entries.values() for _, label, class_name in part}
    order = sorted(names)
    classes = distinct([names[label] for label in order])
    train, test = (_image_set(name, classes, order, entries[part]) for part in ("train", "test"))
    return Parts(name, train, test, known.template)


def _image_set(name: str, classes: tuple[str, ...], order: Sequence[int], entries: Sequence[Any]) -> ImageSet:
    place = {label: row for row, label in enumerate(order)}
    images = ImageSet(
        name, classes, tuple(path for path, _, _ in entries), tuple(place[label] for _, label, _ in entries)
    )
    return _there(images)


def _aircraft(root: Path) -> Parts:
    names = [line.strip() for line in (root / "variants.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    classes = distinct(names)

    def part(which: str) -> ImageSet:
        lines = (root / f"images_variant_{which}.txt").read_text(encoding="utf-8").splitlines()
        pairs = [line.strip().split(" ", 1) for line in lines if line.strip()]
        paths = tuple(root / "images" / f"{image}.jpg" for image, _ in pairs)
        try:
            labels = tuple(names.index(variant) for _, variant in pairs)
        except ValueError as error:
            raise DataError(f"{root}/images_variant_{which}.txt names a variant that variants.txt lacks") from error
        return _there(ImageSet("FGVCAircraft", classes, paths, labels))

    return Parts("FGVCAircraft", part("train"), part("test"), STANDARD["FGVCAircraft"].template)


def _imagenet(root: Path) -> Parts:
    """ImageNet (its validation images are the test part, as is usual) or one of its shifted test sets."""
    lines = [line.split(maxsplit=1) for line in (root / "classnames.txt").read_text(encoding="utf-8").splitlines()]
    ids = sorted((pair[0], pair[1].strip()) for pair in lines if len(pair) == 2)
    named = dict(zip((wnid for wnid, _ in ids), distinct([name for _, name in ids]), strict=True))
    if (root / "images" / "val").is_dir():
        train, test = (_wordnet_folders("ImageNet", root / "images" / part, named) for part in ("train", "val"))
        return Parts("ImageNet", train, test, STANDARD["ImageNet"].template)
    for candidate in SHIFTED_IMAGENETS:
        if (root / candidate).is_dir():
            return Parts(root.name, None, _wordnet_folders(root.name, root / candidate, named), PLAIN_TEMPLATE)
    raise DataError(f"{root} has classnames.txt, but neither images/val nor any of {', '.join(SHIFTED_IMAGENETS)}")


def _wordnet_folders(name: str, root: Path, named: dict[str, str]) -> ImageSet:
    """Folders are named by WordNet id, or by the row of the class among the sorted ids (ImageNet-V2)."""
    if not root.is_dir():
        raise DataError(f"{root} is missing")
    ids = list(named)
    pairs = [(ids[int(f.name)] if f.name.isdigit() else f.name, f) for f in class_folders(root)]
    pairs = sorted((wnid, folder) for wnid, folder in pairs if wnid in named)
    files = [(path, row) for row, (_, folder) in enumerate(pairs) for path in image_files(folder)]
    if not files:
        raise DataError(f"{root} holds no images in folders named by WordNet id")
    classes = tuple(named[wnid] for wnid, _ in pairs)
    return ImageSet(name, classes, tuple(path for path, _ in files), tuple(row for _, row in files))


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Underscores become blanks; a name that comes again gets a number, for label sets refuse it twice (`sunglasses`
    stands for two classes in the usual list of ImageNet names)."""
    seen: dict[str, int] = {}
    told = []
    for name in (" ".join(name.replace("_", " ").split()) for name in names):
        count = seen[name.casefold()] = seen.get(name.casefold(), 0) + 1
        told.append(name if count == 1 else f"{name} ({count})")
    return tuple(told)


def _there(images: ImageSet) -> ImageSet:
    if not images.paths:
        raise DataError(f"{images.name}: the split file lists no images")
    missing = next((path for path in (images.paths[0], images.paths[-1]) if not path.is_file()), None)
    if missing:
        raise DataError(f"{images.name}: {missing} is missing; the split file and the images do not belong together")
    return images
