"""The token head is built from a folder of images and a backbone's folder, and the build resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from adapters.clip import load_backbone
from adapters.training.token_head import build
from adapters.training.token_head_data import MapEnd, SourceImages
from adapters.training.token_head_fit import Lesson, Recipe, embed
from adapters.training.token_head_maps import MapStore
from adapters.vision.token_head import CONFIG_FILE, WEIGHTS_FILE, HeadShape, TokenHead

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"timm_model_name": "test_efficientnet", "timm_model_pretrained": False, "timm_pool": "",
                   "timm_proj": "linear", "timm_proj_bias": True, "image_size": 224},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip
SETS = {"source/imagenet_det200_samples": ("cat", "red fox"), "source/tiny_imagenet_train": ("bus",),
        "source/flickr8k": ("images",), "development/drawings": ("cat", "bus")}  # fmt: skip
RECIPE = Recipe(steps=2, batch=4, warm_up=1, bank=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, classes in SETS.items():
        for label in classes:
            (root / name / label).mkdir(parents=True)
            for number in range(4):
                pixels = generator.integers(0, 255, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / label / f"{number}.jpg")
    rows = ["image\tsplit\tcaption_index\tcaption", "0.jpg\ttrain\t0\ta dog runs", "2.jpg\ttest\t0\ta boy jumps"]
    (root / "source/flickr8k/captions.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "backbone"
    folder.mkdir()
    save_file(open_clip.CLIP(**CONFIG).state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    record = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_a_build_makes_the_backbone_promptable_and_records_its_figures(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    before = load_backbone(str(backbone), device="cpu")
    found = build(data, tmp_path / "work", backbone, RECIPE)
    opened = load_backbone(str(backbone), device="cpu")
    record = json.loads((backbone / CONFIG_FILE).read_text(encoding="utf-8"))
    assert opened.image.promptable
    assert record["backbone"] == opened.fingerprint == before.fingerprint
    assert set(found) == {"drawings"} == set(record["development"])
    assert len(record["reference"]) == 16


def test_a_second_build_reads_the_maps_and_the_snapshot_of_the_first(
    data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.training.token_head_fit.SNAPSHOT_EVERY", 1)
    build(data, tmp_path / "work", backbone, RECIPE)
    first = (backbone / WEIGHTS_FILE).read_bytes()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("maps-*")}
    assert len(written) == 7
    build(data, tmp_path / "work", backbone, RECIPE)
    assert (backbone / WEIGHTS_FILE).read_bytes() == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("maps-*")} == written


def source_images(data: Path, backbone: Path, work: Path) -> tuple[SourceImages, MapEnd]:
    visual, spent = (open_clip.create_model_and_transforms(f"local-dir:{backbone}")[0].eval().visual for _ in range(2))
    parts = MapStore(data, work, spent.trunk).source()
    return SourceImages(parts, data, load_backbone(str(backbone), device="cpu")), MapEnd(visual)


def test_the_map_end_equals_the_plain_path_and_classes_compete_inside_their_set(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    images, end = source_images(data, backbone, tmp_path)
    batch, opened = images.batch(torch.arange(len(images)), end), load_backbone(str(backbone), device="cpu")
    pixels = opened.preprocess.pixels(Image.open(data / "source/imagenet_det200_samples/cat/0.jpg"))
    assert (batch.plain[0] @ opened.image.encode(pixels[None])[0]).item() > 0.99
    assert batch.ranges[0].tolist() == [0, 2]
    assert sorted(batch.captions.unique().tolist()) == [-1, 0]
    assert images.caption_texts.shape == (1, 16)


def test_the_lesson_teaches_the_whole_head(data: Path, backbone: Path, tmp_path: Path) -> None:
    images, end = source_images(data, backbone, tmp_path)
    batch = images.batch(images.order(0, seed=0)[:8], end)
    head = TokenHead(HeadShape(channels=256, positions=49, embed_dim=16, width=20, heads=2, depth=2, inner=8))
    Lesson(images, 10.0, RECIPE).loss(head, batch, torch.Generator().manual_seed(0)).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())
    assert torch.allclose(embed(head, batch.maps, batch.plain).norm(dim=-1), torch.ones(8), atol=1e-3)
