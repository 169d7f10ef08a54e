"""`classify`, `train` and `eval` in this process, with a random two-layer model in open_clip's own folder format."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from adapters.checkpoint import load_source_prompts
from service.cli import cli

IMAGES = Path(__file__).resolve().parents[2] / "examples/images"
MODEL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=MODEL["embed_dim"],
            vision_cfg=open_clip.CLIPVisionCfg(**MODEL["vision_cfg"]),
            text_cfg=open_clip.CLIPTextCfg(**MODEL["text_cfg"]),
        )
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two classes with four plain images each."""
    folder = tmp_path_factory.mktemp("photos")
    for name, colour in (("red thing", (200, 30, 30)), ("blue thing", (30, 30, 200))):
        (folder / name).mkdir()
        for number in range(4):
            Image.new("RGB", (40, 36 + number), colour).save(folder / name / f"{number}.png")
    return folder


def selftpt(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_a_folder_is_classified_without_a_server(model_folder: Path) -> None:
    result = selftpt("classify", IMAGES, "--labels", "cat,dog,rocket", "--backbone", model_folder, "--format", "csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["label"] for row in rows} == {"cat", "dog", "rocket"}
    assert sum(float(row["score"]) for row in rows[:3]) == pytest.approx(1, abs=1e-3)


def test_an_image_that_cannot_be_read_does_not_stop_the_others(model_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    result = selftpt("classify", broken, IMAGES / "cat.jpg", "--labels", "a,b", "--backbone", model_folder, "--json")
    first, second = json.loads(result.stdout)
    assert "error" in first
    assert len(second["predictions"]) == 2
    assert result.exit_code == 0


def test_a_label_that_is_given_twice_is_one_readable_line(model_folder: Path) -> None:
    result = selftpt("classify", IMAGES / "cat.jpg", "--labels", "cat,Cat", "--backbone", model_folder)
    assert result.exit_code == 1
    assert "given twice" in result.output


def test_training_writes_source_prompts_for_the_backbone(model_folder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "prompts"
    result = selftpt("train", "--data", photos, "--backbone", model_folder, "--out", out, "--steps", 2)
    assert result.exit_code == 0, result.output
    assert load_source_prompts(out).settings["images"] == 8


def test_evaluation_reports_every_method_with_accuracy_and_calibration(
    model_folder: Path, photos: Path, tmp_path: Path
) -> None:
    arguments = ("--data", photos, "--backbone", model_folder, "--seeds", 1, "--out", tmp_path, "--json")
    result = selftpt("eval", *arguments, "--methods", "zero-shot,self-tpt:steps=1")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {row["method"] for row in rows} == {"single template", "80-template ensemble", "self-tpt:steps=1"}
    assert all(0 <= row["top1"] <= 100 and 0 <= row["ece"] <= 100 for row in rows)
    assert "| self-tpt:steps=1 |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_trained_controls_need_a_folder_to_be_kept_in(model_folder: Path, photos: Path) -> None:
    result = selftpt("eval", "--data", photos, "--source", photos, "--backbone", model_folder, "--adapter", "zero-shot")
    assert result.exit_code == 2
    assert "--source needs --out" in result.output
    result = selftpt("eval", "--data", photos, "--ablation", "--backbone", model_folder, "--adapter", "zero-shot")
    assert (result.exit_code, "--ablation needs --source" in result.output) == (2, True)


def test_data_that_cannot_carry_the_protocol_is_one_readable_line(model_folder: Path, photos: Path) -> None:
    arguments = ("eval", "--data", photos, "--backbone", model_folder)
    refused = selftpt(*arguments, "--protocol", "cross-dataset")
    assert (refused.exit_code, "--from names the set" in refused.output) == (2, True)
    refused = selftpt(*arguments, "--methods", "nothing")
    assert (refused.exit_code, "no method 'nothing'" in refused.output) == (1, True)
    refused = selftpt(*arguments, "--shots", "one")
    assert (refused.exit_code, "no list of whole numbers" in refused.output) == (2, True)
    refused = selftpt(*arguments, "--sets", "birds")
    assert (refused.exit_code, "no set birds" in refused.output) == (1, True)


@pytest.mark.slow
def test_costs_come_from_fresh_processes_and_are_kept(model_folder: Path, photos: Path, tmp_path: Path) -> None:
    arguments = ("--data", photos, "--backbone", model_folder, "--seeds", "1,", "--out", tmp_path, "--cost")
    result = selftpt("eval", *arguments, "--methods", "zero-shot")
    assert result.exit_code == 0, result.output
    assert "ms per image" in result.stdout
    kept = (tmp_path / "measurements.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum('"kind": "Cost"' in line for line in kept) == 2
    again = selftpt("eval", *arguments, "--methods", "zero-shot")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "measurements.jsonl").read_text(encoding="utf-8").splitlines() == kept


def test_a_folder_of_ones_own_is_compared_after_a_split(model_folder: Path, photos: Path) -> None:
    arguments = ("--backbone", model_folder, "--no-cost", "--methods", "self-tpt:steps=1")
    result = selftpt("compare", photos, *arguments)
    assert result.exit_code == 0, result.output
    assert "testing on 4 of 4" in result.output
    assert "| self-tpt:steps=1 |" in result.stdout
    refused = selftpt("compare", photos.parent / "nowhere", *arguments)
    assert refused.exit_code == 2


def test_training_takes_only_the_train_part_of_a_standard_set(model_folder: Path, photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    entries = [[f"{f.parent.name}/{f.name}", int(f.parent.name == "red thing"), f.parent.name] for f in files]
    split = {"train": entries[::2], "val": [], "test": entries[1::2]}
    root = tmp_path / "dtd"
    shutil.copytree(photos, root / "images")
    (root / "split_zhou_DescribableTextures.json").write_text(json.dumps(split), encoding="utf-8")
    out = tmp_path / "prompts"
    result = selftpt("train", "--data", tmp_path, "--backbone", model_folder, "--out", out, "--steps", 2)
    assert result.exit_code == 0, result.output
    assert load_source_prompts(out).settings["images"] == 4
