"""Every engine that is installed says what torch says, for every batch, and does not depend on the neighbours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from adapters.clip import Backbone
from adapters.engines.artefacts import Artefacts
from adapters.engines.base import REFERENCE, ImageEngine, Kind
from adapters.engines.choice import tower_of
from adapters.engines.kinds import Workshop, open_engine
from tests.needs import missing

FOREIGN = (Kind("openvino", "fp32"), Kind("onnxruntime", "fp32"), Kind("onnxruntime", "int8"))
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.995}


@pytest.fixture(scope="module")
def shop(tiny_backbone: Backbone, engine_folder: Path) -> Workshop:
    tower = tower_of(tiny_backbone)
    assert tower is not None
    return Workshop(tower, 1, Artefacts(engine_folder))


def opened(kind: Kind, shop: Workshop) -> ImageEngine:
    if find_spec(kind.engine) is None:
        raise missing(f"{kind.engine} is not installed")
    return open_engine(kind, shop)


def images(count: int) -> torch.Tensor:
    return torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def test_the_reference_is_the_towers_own_arithmetic_bit_for_bit(tiny_backbone: Backbone, shop: Workshop) -> None:
    features = open_engine(REFERENCE, shop).features(images(3))
    assert torch.equal(F.normalize(features, dim=-1), tiny_backbone.image.encode_reference(images(3)))


@pytest.mark.parametrize("kind", [Kind("torch", "bf16"), *FOREIGN], ids=str)
def test_an_engine_agrees_with_the_reference_for_every_batch(kind: Kind, shop: Workshop) -> None:
    engine, reference = opened(kind, shop), open_engine(REFERENCE, shop)
    for count in (1, 2, 5, 37):
        found, wanted = engine.features(images(count)), reference.features(images(count))
        assert (found.shape, found.dtype) == (wanted.shape, torch.float32)
        assert F.cosine_similarity(found, wanted).min() > LEAST_COSINE[kind.precision]


@pytest.mark.parametrize("kind", FOREIGN, ids=str)
def test_rows_do_not_depend_on_the_batch(kind: Kind, shop: Workshop) -> None:
    engine, pixels = opened(kind, shop), images(21)
    alone = torch.cat([engine.features(pixels[number : number + 1]) for number in range(21)])
    torch.testing.assert_close(engine.features(pixels), alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", FOREIGN, ids=str)
def test_answers_are_not_overwritten_by_the_next_call(kind: Kind, shop: Workshop) -> None:
    engine = opened(kind, shop)
    first = engine.features(images(2))
    kept = first.clone()
    engine.features(images(3))
    assert torch.equal(first, kept)


def test_a_second_opening_exports_nothing(shop: Workshop) -> None:
    kind = Kind("onnxruntime", "fp32")
    before = opened(kind, shop).features(images(4))
    files = {path: path.stat().st_size for path in shop.artefacts.folder.iterdir()}
    again = open_engine(kind, Workshop(shop.tower, 1, Artefacts(shop.artefacts.folder))).features(images(4))
    assert {path: path.stat().st_size for path in shop.artefacts.folder.iterdir()} == files
    assert torch.equal(before, again)


def test_a_tower_runs_in_its_engine_and_can_still_be_asked_by_torch(tiny_backbone: Backbone) -> None:
    class Constant:
        def features(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.full((len(pixels), 64), 2.0)

    tower = tiny_backbone.image.run_by(Constant())
    assert torch.equal(tower.encode(images(2)), torch.full((2, 64), 0.125))
    assert torch.equal(tower.encode_reference(images(2)), tiny_backbone.image.encode(images(2)))
    assert tower.promptable == tiny_backbone.image.promptable


def test_a_damaged_compiled_tower_is_compiled_again(shop: Workshop) -> None:
    kind = Kind("openvino", "fp32")
    before = opened(kind, shop).features(images(2))
    blob = next(path for path in shop.artefacts.folder.glob("*-fp32-*.blob"))
    blob.write_bytes(blob.read_bytes()[:-100])
    assert torch.equal(open_engine(kind, shop).features(images(2)), before)
