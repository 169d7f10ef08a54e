"""Features are written once for each view, in the order of the files, with the classes of their folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from adapters.training.trunk import _write_features, list_images

COLOURS = {"b/2.png": (255, 0, 0), "a/1.png": (0, 255, 0), "a/3.JPG": (0, 0, 255)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), colour).save(path)
    (tmp_path / "images" / "LICENCE.txt").write_text("free")
    return tmp_path / "images"


def brightest(batch_BCHW: Tensor) -> Tensor:
    return batch_BCHW.mean((2, 3))


def test_images_are_listed_in_order_with_their_folder_as_class(images: Path) -> None:
    assert [(path.name, name) for path, name in list_images(images)] == [("1.png", "a"), ("3.JPG", "a"), ("2.png", "b")]


def test_features_files_and_classes_share_one_order(images: Path, tmp_path: Path) -> None:
    target = tmp_path / "features.pt"
    _write_features(brightest, images, "plain", 0, target)
    record = torch.load(target, weights_only=True)
    assert record["features"].argmax(1).tolist() == [1, 2, 0]  # green, blue, red
    assert record["files"] == ["1.png", "3.JPG", "2.png"]
    assert record["classes"] == ["a", "a", "b"]


def test_finished_features_are_not_computed_again(images: Path, tmp_path: Path) -> None:
    calls: list[int] = []

    def encode(batch_BCHW: Tensor) -> Tensor:
        calls.append(len(batch_BCHW))
        return brightest(batch_BCHW)

    for _ in range(2):
        _write_features(encode, images, "crop", 1, tmp_path / "features.pt")
    assert calls == [3]


def test_a_stopped_write_leaves_no_finished_file(images: Path, tmp_path: Path) -> None:
    def stop(batch_BCHW: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _write_features(stop, images, "plain", 0, tmp_path / "features.pt")
    assert not (tmp_path / "features.pt").exists()
