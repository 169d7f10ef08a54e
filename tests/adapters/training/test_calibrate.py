"""Figures and calibration on tiny sets whose answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP, IMAGENET_CLASSNAMES
from torch import Tensor, nn

from adapters.training.calibrate import CENTRED_SHARE, calibrate, centre_texts, left_out_classes
from adapters.training.evaluate import SINGLE_TEMPLATE, calibration_error, class_weights, report, retrieval
from adapters.training.trunk import feature_path

KNOWN_SCALE = 20.0
CLASSES = [
    f"{first}{second}" for first in ("cat", "sea", "bus", "oak") for second in ("bed", "hat", "red", "low", "egg")
]


def record(work: Path, group: str, name: str, features: Tensor, classes: list[str]) -> None:
    path = feature_path(work, group, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [f"{number}.jpg" for number in range(len(classes))]
    torch.save({"features": features, "classes": classes, "files": files}, path)


@pytest.fixture
def world(model: CLIP, tmp_path: Path) -> Path:
    """Sets whose labels are drawn from the softmax of the cosines at the known scale."""
    width = model.text_projection.shape[1]
    model.visual.head.proj = nn.Linear(width, width)
    nn.init.eye_(model.visual.head.proj.weight)
    nn.init.zeros_(model.visual.head.proj.bias)
    weights = class_weights(model, CLASSES, [SINGLE_TEMPLATE])
    generator = torch.Generator().manual_seed(0)
    sets = ("tiny_imagenet_val", "pacs_art_painting", "pacs_sketch")
    for group, name in (("source", "imagenet_det200_samples"), *(("development", name) for name in sets)):
        features = F.normalize(torch.randn(1000, width, generator=generator), dim=-1)
        drawn = (KNOWN_SCALE * features @ weights.T).softmax(1).multinomial(1, generator=generator).squeeze(1)
        record(tmp_path, group, name, features, [CLASSES[number] for number in drawn.tolist()])
    return tmp_path


def test_calibration_finds_the_scale_that_the_labels_were_drawn_with(model: CLIP, world: Path) -> None:
    found = calibrate(model, world)
    assert found["scale"] == pytest.approx(KNOWN_SCALE, rel=0.2)
    assert model.logit_scale.exp().item() == pytest.approx(found["scale"], rel=1e-5)


def test_texts_keep_half_of_what_they_have_in_common_with_every_image(model: CLIP, world: Path) -> None:
    mean = F.one_hot(torch.tensor([3]), model.text_projection.shape[1]).float()
    left_out = sorted(left_out_classes(world))
    for name in ("tiny_imagenet_train", "imagenet_det200_samples"):
        # the images of a class left out are not looked at
        record(world, "source", name, torch.cat([mean, -9 * mean]), ["kept", left_out[0]])
    assert "kept" not in left_out_classes(world)
    before = model.text_projection.detach().clone()
    centre_texts(model, world, [mean])
    expected = before.clone()
    expected[:, 3] *= 1 - CENTRED_SHARE
    assert torch.allclose(model.text_projection, expected, atol=1e-5)


def test_every_second_class_that_imagenet_lacks_is_left_out(tmp_path: Path) -> None:
    unknown = ["zz a", "zz b", "zz c"]
    record(tmp_path, "source", "imagenet_det200_samples", torch.rand(4, 2), [IMAGENET_CLASSNAMES[0], *unknown])
    assert left_out_classes(tmp_path) == {"zz a", "zz c"}


def test_the_calibration_error_is_the_mean_gap_of_confidence_and_accuracy() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [1.0, 0.0]])
    error = calibration_error(probabilities, torch.tensor([0, 1, 1, 0]))
    assert error == pytest.approx((abs(1 - 1.8) + abs(1 - 0.65) + 0) / 4)


def test_class_weights_are_the_normalised_mean_over_templates(model: CLIP) -> None:
    forms = ["a photo of a {}.", "{}"]
    single = [class_weights(model, ["dog", "cat"], [form]) for form in forms]
    both = class_weights(model, ["dog", "cat"], forms)
    assert torch.allclose(both, F.normalize(single[0] + single[1], dim=-1), atol=2e-2)  # bfloat16 inside
    assert torch.allclose(both.norm(dim=1), torch.ones(2), atol=1e-5)


def test_the_report_names_every_set_of_its_groups(model: CLIP, tmp_path: Path) -> None:
    for group, name in (("evaluation", "a-b"), ("development", "c"), ("source", "d")):
        record(tmp_path, group, name, torch.rand(4, 6), ["cat", "dog", "cat", "yak"])
    found = report(model, tmp_path, ("evaluation", "development"))
    assert list(found) == ["evaluation/a-b", "development/c"]
    assert (found["development/c"]["classes"], found["development/c"]["images"]) == (3, 4)
    assert all(0 <= row["top1"] <= 100 and not math.isnan(row["ece"]) for row in found.values())


def test_retrieval_finds_images_that_equal_their_captions(model: CLIP, tmp_path: Path) -> None:
    folder = tmp_path / "source" / "flickr8k"
    folder.mkdir(parents=True)
    texts = ["a dog runs", "two children on a beach", "snow"]
    lines = [f"{number}.jpg\t0\ttest\t{text}\n" for number, text in enumerate(texts)]
    (folder / "captions.tsv").write_text("image\tcaption_index\tsplit\tcaption\n" + "".join(lines))
    model.visual.head = nn.Identity()
    record(tmp_path, "source", "flickr8k", class_weights(model, texts, ["{}"]), texts)
    exact = retrieval(model, tmp_path, tmp_path)
    assert exact == dict.fromkeys(exact, 100.0)
    record(tmp_path, "source", "flickr8k", class_weights(model, texts[::-1], ["{}"]), texts)
    assert retrieval(model, tmp_path, tmp_path)["image_to_text_r1"] == pytest.approx(100 / 3)
