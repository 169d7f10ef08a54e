"""The bundled backbone as a user of open_clip sees it: from its folder alone, without this project's code."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import skimage
import torch
from PIL import Image

import adapters

BUNDLED = Path(adapters.__path__[0]) / "bundled"
SOURCE = f"local-dir:{BUNDLED}"
MEGABYTE = 1_000_000


@cache
def load() -> tuple[Any, Any, Any]:
    model, _, preprocess = open_clip.create_model_and_transforms(SOURCE)
    return model.eval(), preprocess, open_clip.get_tokenizer(SOURCE)


@cache
def reference() -> dict[str, Any]:
    record: dict[str, Any] = json.loads((BUNDLED / "reference.json").read_text(encoding="utf-8"))
    return record


def generated_image() -> Image.Image:
    y_HW, x_HW = np.mgrid[0:224, 0:224] / 224
    disc_HW = (np.mod(x_HW * 4, 1) - 0.5) ** 2 + (np.mod(y_HW * 4, 1) - 0.5) ** 2 < 0.1
    pixels_HWC = np.stack([255 * x_HW, 255 * y_HW, 255 * disc_HW], axis=-1)
    return Image.fromarray(pixels_HWC.round().astype(np.uint8))


def cosines(found_BD: torch.Tensor, recorded: list[list[float]]) -> torch.Tensor:
    return torch.cosine_similarity(found_BD, torch.tensor(recorded), dim=-1)


def test_weights_fit_into_48_megabytes() -> None:
    assert (BUNDLED / "open_clip_model.safetensors").stat().st_size <= 48 * MEGABYTE


def test_preprocessing_uses_the_models_own_mean_and_deviation() -> None:
    _, preprocess, _ = load()
    black = preprocess(Image.new("RGB", (300, 260)))
    white = preprocess(Image.new("RGB", (260, 300), "white"))
    assert black.shape == (3, 224, 224)
    assert black.unique().tolist() == pytest.approx([-127 / 128], abs=1e-5)
    assert white.unique().tolist() == pytest.approx([1.0], abs=1e-5)


def test_tokenizer_knows_the_context_length() -> None:
    model, _, tokenize = load()
    assert tokenize(["a photo of a dog."]).shape == (1, model.context_length)


@torch.inference_mode()
def test_image_embedding_is_the_recorded_one() -> None:
    model, preprocess, _ = load()
    found_BD = model.encode_image(preprocess(generated_image()).unsqueeze(0), normalize=True)
    assert cosines(found_BD, [reference()["image"]]).min() >= 0.9999


@torch.inference_mode()
def test_text_embeddings_are_the_recorded_ones() -> None:
    model, _, tokenize = load()
    found_BD = model.encode_text(tokenize(reference()["prompts"]), normalize=True)
    assert cosines(found_BD, reference()["texts"]).min() >= 0.9999


@pytest.mark.parametrize(("photo", "expected"), [("chelsea", "cat"), ("coffee", "coffee cup"), ("rocket", "rocket")])
@torch.inference_mode()
def test_photo_gets_the_right_one_of_ten_labels(photo: str, expected: str) -> None:
    labels = ["cat", "dog", "horse", "coffee cup", "rocket", "bicycle", "guitar", "tree", "house", "airplane"]
    model, preprocess, tokenize = load()
    image = preprocess(Image.fromarray(getattr(skimage.data, photo)())).unsqueeze(0)
    image_1D = model.encode_image(image, normalize=True)
    texts_CD = model.encode_text(tokenize([f"a photo of a {label}." for label in labels]), normalize=True)
    assert labels[int((image_1D @ texts_CD.T).argmax())] == expected
