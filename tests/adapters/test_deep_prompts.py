"""Deep text prompts: hidden states of the slots are replaced at the entrance of later blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from adapters.clip import Backbone
from adapters.text.layout import PromptLayout, lay_out


def layout_for(backbone: Backbone, *names: str) -> PromptLayout:
    text = backbone.text
    ids = [text.tokens(name) for name in names]
    return lay_out(ids, context=2, position="end", stop=text.tokens("."), sot=text.sot, eot=text.eot)


def hidden_after_the_first_block(backbone: Backbone, ctx: Tensor, layout: PromptLayout) -> Tensor:
    """Of the slots, by the tower's own block; they stand in front, so that they are the same in every prompt."""
    tower = backbone.text._passes._tower
    x = backbone.text.embed_tokens(layout.ids_NL[0])[None]
    x[:, 1:3] = ctx
    x = x + tower.positional_embedding[: x.shape[1]]
    mask = tower.attn_mask[: x.shape[1], : x.shape[1]]
    after: Tensor = tower.transformer.resblocks[0](x, attn_mask=mask)
    return after[0, 1:3].detach()


def test_hidden_states_replaced_by_themselves_change_nothing(tiny_backbone: Backbone) -> None:
    text, layout = tiny_backbone.text, layout_for(tiny_backbone, "grey cat", "dog")
    ctx = text.embed_tokens(text.tokens("a photo"))
    own = hidden_after_the_first_block(tiny_backbone, ctx, layout)
    plain, deep = text.encode_prompts(ctx, layout), text.encode_prompts(ctx, layout, deep_IMW=own[None])
    assert torch.allclose(plain, deep, atol=1e-6)


def test_deep_prompts_change_the_features_and_receive_gradients(tiny_backbone: Backbone) -> None:
    text, layout = tiny_backbone.text, layout_for(tiny_backbone, "grey cat", "dog")
    ctx = text.embed_tokens(text.tokens("a photo"))
    deep = torch.randn(1, 2, text.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    features = text.encode_prompts(ctx, layout, deep_IMW=deep)
    features[:, 0].sum().backward()
    assert not torch.allclose(features, text.encode_prompts(ctx, layout), atol=1e-3)
    assert deep.grad is not None
    assert float(deep.grad.abs().max()) > 0
