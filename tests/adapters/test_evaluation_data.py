"""Folders and split files to data sets, with small generated images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from adapters.evaluation.datasets import DataError, ImageSet
from adapters.evaluation.layouts import chosen, halved, read_data
from adapters.evaluation.standard_sets import distinct


def paint(*files: Path) -> None:
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (number * 40 % 255, 10, 90)).save(file)


def test_a_split_file_gives_classes_in_label_order_with_their_train_and_test_images(tmp_path: Path) -> None:
    root = tmp_path / "oxford_pets"
    paint(*(root / "images" / f"{name}.jpg" for name in ("a", "b", "c", "d")))
    split = {
        "train": [["b.jpg", 1, "boxer_dog"], ["a.jpg", 0, "abyssinian"]],
        "val": [["c.jpg", 0, "abyssinian"]],
        "test": [["d.jpg", 1, "boxer_dog"]],
    }
    (root / "split_zhou_OxfordPets.json").write_text(json.dumps(split), encoding="utf-8")
    (data,) = read_data(root)
    assert (data.name, data.classes) == ("OxfordPets", ("abyssinian", "boxer dog"))
    assert data.train is not None
    assert data.train.labels == (1, 0)
    assert [path.name for path in data.test.paths] == ["d.jpg"]
    assert data.labels.templates == ("a photo of a {}, a type of pet.",)


def test_aircraft_and_imagenet_are_read_from_their_own_lists(tmp_path: Path) -> None:
    aircraft, imagenet = tmp_path / "fgvc_aircraft", tmp_path / "imagenet"
    paint(aircraft / "images/1.jpg", aircraft / "images/2.jpg")
    (aircraft / "variants.txt").write_text("707-320\nBoeing 717\n", encoding="utf-8")
    for part, line in (("train", "1 707-320"), ("val", ""), ("test", "2 Boeing 717")):
        (aircraft / f"images_variant_{part}.txt").write_text(line + "\n", encoding="utf-8")
    for part in ("train", "val"):
        paint(imagenet / "images" / part / "n01/x.JPEG", imagenet / "images" / part / "n02/y.JPEG")
    (imagenet / "classnames.txt").write_text("n01 tench\nn02 great white shark\n", encoding="utf-8")
    first, second = read_data(tmp_path)
    assert (first.name, first.test.labels) == ("FGVCAircraft", (1,))
    assert (second.name, second.classes) == ("ImageNet", ("tench", "great white shark"))
    assert second.train is not None


def test_a_shifted_imagenet_may_have_some_of_the_classes(tmp_path: Path) -> None:
    root = tmp_path / "imagenet-rendition"
    paint(root / "imagenet-r/n02/y.jpg")
    (root / "classnames.txt").write_text("n01 tench\nn02 great white shark\n", encoding="utf-8")
    (data,) = read_data(root)
    assert (data.classes, data.train, data.test.labels) == (("great white shark",), None, (0,))


def test_support_images_lie_beside_the_evaluation_images(tmp_path: Path) -> None:
    for group, count in (("few_shot", 4), ("evaluation", 2)):
        for name in ("cat", "dog"):
            paint(*(tmp_path / group / "pets" / name / f"{n}.jpg" for n in range(count)))
    paint(tmp_path / "evaluation/cars/van/1.jpg", tmp_path / "evaluation/cars/bus/1.jpg")
    cars, pets = read_data(tmp_path)
    assert cars.train is None
    assert pets.train is not None
    assert (len(pets.train.paths), len(pets.test.paths)) == (8, 4)
    assert [data.name for data in chosen([cars, pets], ["pets"])] == ["pets"]
    with pytest.raises(DataError, match="no set birds; there are cars, pets"):
        chosen([cars, pets], ["birds"])


def test_what_is_no_data_set_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no data set"):
        read_data(tmp_path)
    (tmp_path / "split_zhou_X.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="no split file"):
        read_data(tmp_path)


def test_a_split_file_without_its_images_is_refused(tmp_path: Path) -> None:
    split = {"train": [["a.jpg", 0, "a"]], "val": [], "test": [["a.jpg", 0, "a"]]}
    (tmp_path / "split_zhou_EuroSAT.json").write_text(json.dumps(split), encoding="utf-8")
    with pytest.raises(DataError, match="missing"):
        read_data(tmp_path)


def many(per_class: int) -> ImageSet:
    paths = tuple(Path(f"{name}/{n}.jpg") for name in "ab" for n in range(per_class))
    return ImageSet("many", ("a", "b"), paths, (0,) * per_class + (1,) * per_class)


def test_draws_of_one_seed_are_nested_and_of_another_differ() -> None:
    pool = many(10)
    two, four = set(pool.drawn(2, seed=1).paths), set(pool.drawn(4, seed=1).paths)
    assert (len(two), len(four)) == (4, 8)
    assert two < four
    assert set(pool.drawn(4, seed=2).paths) != four
    assert pool.drawn(99, seed=1).labels.count(1) == 10


def test_a_divided_folder_has_no_image_on_both_sides() -> None:
    data = halved(many(5), test_share=0.4, seed=0)
    assert data.train is not None
    assert not set(data.train.paths) & set(data.test.paths)
    assert (data.test.labels.count(0), data.train.labels.count(0)) == (2, 3)
    with pytest.raises(DataError, match="at least 2"):
        halved(many(1), test_share=0.5, seed=0)


def test_repeated_names_are_told_apart() -> None:
    assert distinct(["sunglasses", "missile_toe", "Sunglasses"]) == ("sunglasses", "missile toe", "Sunglasses (2)")
