"""From a folder to data sets: finds out which of the known layouts it has.

A standard set with its split file; `train` and `test` below one folder; `few_shot/<set>` beside `evaluation/<set>`;
plain class folders; or a folder of any of these.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.base import LabelSet
from adapters.evaluation.datasets import DataError, ImageSet, class_folders, image_files, read_folder
from adapters.evaluation.standard_sets import distinct, read_standard

TRAIN, TEST = ("train", "few_shot"), ("test", "evaluation", "val")
"""Names of sub-folders, best first, that hold images to learn from and to test on."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A set with the images to test on and, where there are some, those to learn from. Both have the same classes."""

    name: str
    test: ImageSet
    train: ImageSet | None = None
    template: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.test.classes

    @property
    def labels(self) -> LabelSet:
        return self.label_set(range(len(self.classes)))

    def label_set(self, rows: Iterable[int]) -> LabelSet:
        """Some of the classes, with the set's own template if it has one."""
        return LabelSet.of(*(self.classes[row] for row in rows), templates=(self.template,) if self.template else ())

    @property
    def digest(self) -> str:
        """Names, classes and test files: a result belongs to this content."""
        return digest_of(self.test, self.name, self.template)

    def limited(self, per_class: int | None) -> DataSet:
        """At most `per_class` test images of each class."""
        return replace(self, test=self.test.first(per_class))


def digest_of(images: ImageSet, *facts: str) -> str:
    """Hash of the classes, the files' names, and further facts."""
    files = [f"{path.parent.name}/{path.name}" for path in images.paths]
    text = "\n".join([*facts, *images.classes, "", *files])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def read_data(root: Path) -> list[DataSet]:
    """All sets below `root`, or the one that it is. Raises `DataError` if there is none."""
    found = _read(root)
    if not found:
        raise DataError(
            f"{root} holds no data set: expected class folders with images, train and test folders of such, "
            "few_shot and evaluation folders of sets, or standard sets with their split files"
        )
    return found


def chosen(sets: Sequence[DataSet], names: Sequence[str]) -> list[DataSet]:
    """The sets of these names in this order; all of them for no names. Raises `DataError` for an unknown one, or if two
    sets go by one name."""
    by_name = {data.name: data for data in sets}
    if len(by_name) < len(sets):
        twice = sorted({data.name for data in sets if sum(other.name == data.name for other in sets) > 1})
        raise DataError(f"two sets go by the name {', '.join(twice)}; rename a folder or give less data")
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise DataError(f"no set {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names] if names else list(by_name.values())


def halved(data: ImageSet, *, test_share: float, seed: int) -> DataSet:
    """One image set divided class by class: a seeded share to test on, the rest to learn from. Every class keeps at
    least one image on both sides. Raises `DataError` for a class with fewer than two."""
    order = random.Random(seed)
    train: list[int] = []
    test: list[int] = []
    for name, rows in zip(data.classes, data.rows_by_class(), strict=True):
        if len(rows) < 2:
            raise DataError(f"class {name!r} has {len(rows)} images; at least 2 are needed to learn and to test")
        shuffled = order.sample(rows, len(rows))
        count = min(len(rows) - 1, max(1, round(test_share * len(rows))))
        test += shuffled[:count]
        train += shuffled[count:]
    return DataSet(data.name, data.take(sorted(test)), data.take(sorted(train)))


def _read(root: Path) -> list[DataSet]:
    standard = read_standard(root)
    if standard is not None:
        return [DataSet(standard.name, standard.test, standard.train, standard.template)]
    folders = {folder.name: folder for folder in class_folders(root)}
    test = next((folders[name] for name in TEST if name in folders), None)
    if test is not None:
        train = next((folders[name] for name in TRAIN if name in folders), None)
        return _paired(root, test, train)
    if any(image_files(folder) for folder in folders.values()):
        return [_plain(root)]
    return [data for folder in folders.values() for data in _read(folder)]


def _paired(root: Path, test: Path, train: Path | None) -> list[DataSet]:
    if any(image_files(folder) for folder in class_folders(test)):
        return [_joined(root.name, read_folder(test), read_folder(train) if train else None)]
    sets = []
    for folder in class_folders(test):
        beside = train / folder.name if train and (train / folder.name).is_dir() else None
        sets.append(_joined(folder.name, read_folder(folder), read_folder(beside) if beside else None))
    return sets


def _plain(root: Path) -> DataSet:
    return _joined(root.name, read_folder(root), None)


def _joined(name: str, test: ImageSet, train: ImageSet | None) -> DataSet:
    """Both parts under the test part's classes."""
    if train is not None and train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"{name}: the images to learn from and to test on differ in their classes: {', '.join(odd[:5])}"
        )
    classes = distinct(test.classes)
    renamed = [replace(part, name=name, classes=classes) if part else None for part in (test, train)]
    assert renamed[0] is not None
    return DataSet(name, renamed[0], renamed[1])
