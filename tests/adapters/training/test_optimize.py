"""Optimisation: what a step touches, what the average remembers, and prompts encoded in groups."""

from __future__ import annotations

import pytest
import torch
from open_clip import CLIP
from torch import nn

from adapters.training.optimize import AveragedWeights, TowerOptimizer, encode_bucketed, schedule
from adapters.training.tower import encode_features, encode_text, tokenizer

PROMPTS = ["zebra", "a photo of a very large grey dog on a beach.", "a cat", "two children", "the sea at night"]


def test_the_schedule_rises_to_one_and_falls_to_zero() -> None:
    rates = [schedule(step, 100, 10) for step in range(101)]
    assert rates[9] == rates[10] == 1.0
    assert rates[0] == 0.1
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_averaged_weights_forget_the_start_and_even_out_the_noise() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 1000.0)
    average = AveragedWeights(model)
    for step in range(1, 4001):
        nn.init.constant_(model.weight, 5.0 + (-1) ** (step // 10))
        average.update(model)
    average.copy_to(model)
    assert model.weight.item() == pytest.approx(5.0, abs=0.1)


def test_the_average_of_a_short_run_is_already_near_its_weights() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 100.0)
    average = AveragedWeights(model)
    nn.init.constant_(model.weight, 5.0)
    for _ in range(50):
        average.update(model)
    assert average.weights["weight"].item() == pytest.approx(5.0, abs=0.5)


def test_the_average_leaves_the_trunk_alone() -> None:
    model = nn.ModuleDict({"visual": nn.ModuleDict({"trunk": nn.Linear(1, 1), "head": nn.Linear(1, 1)})})
    assert set(AveragedWeights(model).weights) == {"visual.head.weight", "visual.head.bias"}


def test_a_step_touches_only_the_token_rows_of_its_batch(model: CLIP) -> None:
    optimizer = TowerOptimizer(model, 10, {"text": 1e-2, "table": 1e-2}, warm_up=1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    tokens = tokenizer()(["dog"])
    optimizer.step(encode_text(model, tokens).sum())
    changed = (model.token_embedding.weight != before["token_embedding.weight"]).any(1).nonzero().squeeze(1)
    assert changed.tolist() == tokens.unique()[1:].tolist()  # all but the padding
    assert not torch.equal(model.ln_final.weight, before["ln_final.weight"])


def test_groups_without_a_rate_stay_fixed(model: CLIP) -> None:
    before = {name: parameter.detach().clone() for name, parameter in model.visual.named_parameters()}
    rates = {"text": 1e-2, "table": 1e-2}
    for case, fixed in ((rates, True), ({**rates, "projection": 1e-2}, False)):
        optimizer = TowerOptimizer(model, 10, case, warm_up=1)
        images, texts = encode_features(model, torch.ones(1, 6)), encode_text(model, tokenizer()(["dog"]))
        optimizer.step((images * texts).sum())
        assert torch.equal(model.visual.head.proj.weight, before["head.proj.weight"]) == fixed
    assert torch.equal(model.visual.conv1.weight, before["conv1.weight"])


@pytest.mark.parametrize("count", [1, 3, 5])
def test_prompts_of_mixed_length_come_back_in_their_order(model: CLIP, count: int) -> None:
    tokens = tokenizer()(PROMPTS[:count])
    single = torch.cat([encode_text(model, row[None]) for row in tokens])
    assert torch.allclose(encode_bucketed(model, tokens), single, atol=2e-2)  # bfloat16 inside
    assert encode_bucketed(model, tokens).argmax(1).tolist() == single.argmax(1).tolist()
