"""What a build writes can be opened by open_clip, and says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP

from adapters.training.export import REFERENCE_PROMPTS, export_card, export_reference, export_weights, reference_image
from adapters.training.tower import CONTEXT_LENGTH, EMBED_DIM, MODEL_CONFIG, tokenizer
from adapters.training.trunk import MEAN, STD

FIGURES = {
    "classes": 10,
    "images": 200,
    "top1": 54.321,
    "ece": 3.21,
    "top1_80_templates": 55.0,
    "ece_80_templates": 4.0,
}


@pytest.fixture(scope="module")
def built() -> CLIP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(**MODEL_CONFIG).eval()


@pytest.fixture(scope="module")
def folder(built: CLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "new"
    export_weights(built, folder)
    export_reference(folder)
    return folder


def test_open_clip_opens_an_exported_model(built: CLIP, folder: Path) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    half = {name: value.half().float() for name, value in built.state_dict().items()}
    assert all(torch.equal(value.float(), half[name]) for name, value in model.state_dict().items())
    assert (tuple(preprocess.transforms[-1].mean), tuple(preprocess.transforms[-1].std)) == (MEAN, STD)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a dog"])
    assert torch.equal(tokens, tokenizer()(["a dog"]))
    assert tokens.shape == (1, CONTEXT_LENGTH)


def test_reference_embeddings_are_those_of_the_model(built: CLIP, folder: Path) -> None:
    reference = json.loads((folder / "reference.json").read_text())
    with torch.inference_mode():
        texts = F.normalize(built.encode_text(tokenizer()(list(REFERENCE_PROMPTS))), dim=-1)
    assert torch.allclose(torch.tensor(reference["texts"]), texts, atol=5e-3)  # the file holds half precision
    assert len(reference["image"]) == EMBED_DIM


def test_the_reference_image_is_always_the_same() -> None:
    assert reference_image().tobytes() == reference_image().tobytes()
    assert (reference_image().size, reference_image().mode) == ((224, 224), "RGB")


def test_a_card_has_every_blank_filled_in(tmp_path: Path) -> None:
    said = {"date": "1 May", "retrieval": "r1 12.3", "scale": "17.5", "captions": "without", "size": "98.7"}
    export_card(tmp_path, {"figures": {"evaluation/cifar10": FIGURES}, **said})
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert "| evaluation/cifar10 | 10 | 200 | 54.3 | 3.2 | 55.0 | 4.0 |" in card
    assert all(value in card for value in said.values())
    assert "{" not in card.replace("{}", "")
