"""DAPT: equal to CoOp without its own parts, and what those parts do."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch.nn import functional as F

from adapters.base import LabelSet, Support
from adapters.clip import Backbone
from adapters.errors import OptionError
from adapters.learning.few_shot import SupportImages
from adapters.learning.fitting import Split
from adapters.methods.coop import CoOp, Seen
from adapters.methods.dapt import DAPT, DAPTSettings, dispersion, prototypes
from adapters.registry import create_adapter
from adapters.vision.tower import ImageTower

LABELS = LabelSet.of("cat", "dog", "red fox")
SMALL = DAPTSettings(visual_prompts=0, beta_t=0.0, steps=4, views=1, learning_rate=0.02)


def support(per_class: int = 4) -> Support:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(3).repeat_interleave(per_class)
    pixels = torch.randint(0, 256, (len(labels), 3, 32, 32), generator=generator)
    return Support(pixels.to(torch.uint8), labels)


def unit_rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("class_specific", [False, True])
def test_without_visual_prompts_and_dispersion_it_is_coop(tiny_backbone: Backbone, class_specific: bool) -> None:
    settings = replace(SMALL, class_specific=class_specific)
    dapt = DAPT(settings, tiny_backbone).adapt(LABELS, tiny_backbone, support())
    coop = CoOp(settings.text, tiny_backbone).adapt(LABELS, tiny_backbone, support())
    assert torch.equal(dapt.weights, coop.weights)
    assert torch.equal(dapt.extras["context"], coop.extras["context"])
    assert dapt.visual_prompts is None
    assert dapt.info["heldout_top1"] == coop.info["heldout_top1"]


def test_inter_dispersion_pushes_the_classes_apart(tiny_backbone: Backbone) -> None:
    def closeness(beta_t: float) -> float:
        settings = replace(SMALL, beta_t=beta_t, anchor=0.0, steps=20)
        weights = DAPT(settings, tiny_backbone).adapt(LABELS, tiny_backbone, support()).weights
        return float((weights @ weights.T).triu(1).sum())

    assert closeness(100.0) < closeness(0.0) - 0.1


def test_prototypes_are_the_plain_means_of_what_is_learnt_from() -> None:
    features, labels = unit_rows(12, 16).view(6, 2, 16), torch.tensor([0, 1, 2, 0, 1, 2])
    data = SupportImages(features, labels, Split(torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5])))
    found = prototypes(data, 3)
    assert torch.allclose(found[0], torch.cat([features[0], features[3]]).mean(dim=0), atol=1e-6)
    assert torch.allclose(found[1], features[1].mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("width", [64, 512])
def test_the_weight_of_the_gathering_does_not_depend_on_the_width(width: int) -> None:
    rows = unit_rows(3, width)
    labels = torch.tensor([0, 2])
    term = dispersion(DAPTSettings(beta_t=0.0, beta_v=0.5), rows)
    assert float(term(Seen(rows, torch.arange(3), -rows[labels], labels))) == pytest.approx(0.5 * 4, rel=1e-5)


def test_visual_prompts_are_learnt_and_served(tiny_backbone: Backbone) -> None:
    settings = DAPTSettings(visual_prompts=3, steps=6, views=1, visual_learning_rate=0.05)
    still = DAPT(replace(settings, steps=0), tiny_backbone).adapt(LABELS, tiny_backbone, support())
    state = DAPT(settings, tiny_backbone).adapt(LABELS, tiny_backbone, support())
    assert state.visual_prompts is not None
    assert still.visual_prompts is not None
    assert state.visual_prompts.tokens.shape == (1, 3, tiny_backbone.image.token_width)
    assert not torch.allclose(state.visual_prompts.tokens, still.visual_prompts.tokens)
    assert DAPT(settings, tiny_backbone).needs(state).prompts == 3


class Closed:
    """An image tower that takes no prompts."""

    promptable = False
    tokens_version = ""


def test_a_tower_that_takes_no_prompts_is_named_and_text_alone_still_works(tiny_backbone: Backbone) -> None:
    closed = replace(tiny_backbone, image=cast("ImageTower", Closed()))
    with pytest.raises(OptionError) as caught:
        create_adapter("dapt", closed, {"visual_prompts": 4})
    assert caught.value.field == "options.visual_prompts"
    create_adapter("dapt", closed, {"visual_prompts": 0})
    assert DAPT(DAPTSettings(), closed).settings.visual_prompts == 0
    assert DAPT(DAPTSettings(), tiny_backbone).settings.visual_prompts > 0


def test_settings_of_either_side_are_checked() -> None:
    for bad in ({"beta_t": -1.0}, {"beta_v": float("nan")}, {"steps": -1}, {"visual_prompts": 65}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            DAPTSettings(**bad)
