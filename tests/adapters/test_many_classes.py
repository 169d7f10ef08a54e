"""Ten thousand classes: the work of a step grows with them, what it holds with a graph at once does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import LabelSet
from adapters.clip import Backbone
from adapters.learning.few_shot import SupportImages
from adapters.learning.fitting import Split
from adapters.methods.coop import CoOpSettings, Seen, anchored, fit_context, start_context
from adapters.text.layout import PromptLayout
from adapters.text.prompted_classes import PromptedClasses

CHUNK = 250


def many(classes: int) -> LabelSet:
    return LabelSet.of(*(f"thing {n}" for n in range(classes)))


def one_image_each(classes: int, width: int) -> SupportImages:
    features = F.normalize(torch.randn(classes, 1, width, generator=torch.Generator().manual_seed(0)), dim=-1)
    rows = torch.arange(classes)
    return SupportImages(features, rows, Split(rows, rows[:0]))


Encode = Callable[[Tensor, PromptLayout], Tensor]


def counting(encode: Encode, held: list[int]) -> Encode:
    """`encode`, noting how many prompts each call keeps a graph of."""

    def counted(ctx: Tensor, layout: PromptLayout) -> Tensor:
        features = encode(ctx, layout)
        held.append(len(layout) if features.requires_grad else 0)
        return features

    return counted


@pytest.mark.parametrize(("classes", "class_specific"), [(100, False), (1000, True), (10_000, False)])
def test_a_step_over_all_classes_holds_one_chunk_at_a_time(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, classes: int, class_specific: bool
) -> None:
    held: list[int] = []
    monkeypatch.setattr(tiny_backbone.text, "encode_prompts", counting(tiny_backbone.text.encode_prompts, held))
    settings = CoOpSettings(steps=1, chunk=CHUNK, class_batch=classes, class_specific=class_specific)
    prompts = PromptedClasses(tiny_backbone.text, many(classes), context=4, position="end", chunk=CHUNK)
    seen: list[int] = []

    def penalty(step: Seen) -> Tensor:
        seen.append(len(step.rows_cD))
        return anchored(torch.zeros(classes, tiny_backbone.embed_dim), 0.1)(step)

    ctx = start_context(tiny_backbone, settings, classes)
    data = one_image_each(classes, tiny_backbone.embed_dim)
    fit_context(ctx, prompts, data.drawn(0), data, settings, logit_scale=10.0, penalty=penalty)
    assert seen == [classes]
    assert max(held) <= CHUNK
    assert sum(held) == classes
    assert ctx.isfinite().all()


def test_by_default_a_step_takes_a_draw_of_ten_thousand_classes(tiny_backbone: Backbone) -> None:
    settings = CoOpSettings(steps=2, chunk=CHUNK)
    prompts = PromptedClasses(tiny_backbone.text, many(10_000), context=4, position="end", chunk=CHUNK)
    data = one_image_each(10_000, tiny_backbone.embed_dim)
    ctx = start_context(tiny_backbone, settings, 10_000)
    before = tiny_backbone.text.prompts_encoded
    fit_context(ctx, prompts, data.drawn(0), data, settings, logit_scale=10.0)
    assert tiny_backbone.text.prompts_encoded - before == 2 * 2 * settings.class_batch
