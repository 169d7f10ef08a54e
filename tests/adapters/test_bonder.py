"""The network of TGP-T: its size, its shape for any tower, and the exactness of its two short text passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.clip import Backbone
from adapters.learning.bonder import Bonder, Sizes, TextGuide, bank_size, fresh_guide, heads_for, stored_guide
from adapters.text.layout import concatenate, lay_out

CPU = torch.device("cpu")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_guide(joint: int = 64, classes: int = 5) -> TextGuide:
    sizes = Sizes(joint=joint, text=64, category=10, content=15, classes=classes)
    return fresh_guide(sizes, words_nW=randn(4, 64), rows_CD=randn(classes, joint), text_share=1.0, seed=1, device=CPU)


@pytest.mark.parametrize("classes", [10, 1000])
def test_it_has_the_published_parameters_without_the_two_norms_per_block_that_nothing_used(classes: int) -> None:
    guide = TextGuide(Sizes(joint=512, text=512, category=32, content=64, classes=classes))
    unused = 2 * 2 * 2 * 512
    assert sum(p.numel() for p in guide.parameters()) == 4_259_840 - unused + 1024 * classes
    assert sum(p.numel() for p in Bonder(512).parameters()) == 2_105_344 - unused // 2


def test_banks_are_as_published_at_77_tokens_and_fit_shorter_contexts() -> None:
    assert (bank_size(32, 77), bank_size(64, 77)) == (32, 64)
    assert (bank_size(32, 32), bank_size(64, 32)) == (13, 27)
    assert all(1 <= bank_size(128, length) <= length - 3 for length in (8, 16, 24, 77, 256))


def test_queries_see_the_image_tokens_as_keys_and_values_at_one_scale() -> None:
    guide = small_guide()
    bonder, queries, tokens = guide.category_bonder, randn(2, 3, 64), randn(2, 7, 64, seed=1)
    with torch.no_grad():
        after_self = queries + bonder.mix_out(
            F.scaled_dot_product_attention(*bonder.mix(bonder.norm_self(queries)).chunk(3, dim=-1))
        )
        seen = F.layer_norm(tokens, (64,))
        share = (bonder.look(bonder.norm_cross(after_self)) @ seen.transpose(1, 2) * 64**-0.5).softmax(dim=-1)
        x = after_self + bonder.look_out(share @ seen)
        expected = x + bonder.narrow(F.gelu(bonder.widen(bonder.norm_forward(x))))
        assert torch.allclose(bonder(queries, tokens), expected, atol=1e-5)


def test_a_short_sequence_gives_what_the_padded_one_gives(tiny_backbone: Backbone) -> None:
    text, queries = tiny_backbone.text, randn(10, 64)
    stop, filler = text.tokens("."), text.tokens("a much longer name of it all")
    layouts = [
        lay_out([name], context=10, position="end", stop=stop, sot=text.sot, eot=text.eot) for name in ([], filler)
    ]
    padded = text.encode_prompts(queries, concatenate(layouts))[0]
    short = F.normalize(text.encode_sequences(queries[None], stop=stop)[0], dim=-1)
    assert torch.allclose(short, padded, atol=1e-5)


def test_image_and_text_features_share_one_norm(tiny_backbone: Backbone) -> None:
    guide, cls = small_guide(), 3 * randn(2, 64)
    with torch.no_grad():
        category, content = guide.prompts(randn(2, 7, 64))
        stop = tiny_backbone.text.tokens(".")
        read = (
            tiny_backbone.text.encode_sequences(category, stop=stop)
            + tiny_backbone.text.encode_sequences(content, stop=stop)
        ) / 2
        expected = torch.cat([cls, read], dim=-1)
        fused = guide.fused(cls, (category, content), tiny_backbone.text)
    assert torch.allclose(fused, expected / expected.norm(dim=-1, keepdim=True), atol=1e-5)


def test_towers_of_other_widths_get_a_learnt_map(tiny_backbone: Backbone) -> None:
    guide = small_guide(joint=32)
    category, content = guide.prompts(randn(2, 7, 32))
    assert category.shape == (2, 10, 64)
    assert content.shape == (2, 15, 64)
    assert guide.tokens_in.weight.shape == (64, 32)
    assert [name for name, _ in small_guide().named_parameters() if "tokens_in" in name] == []


def test_the_start_follows_from_the_seed_and_begins_with_the_given_words() -> None:
    torch.manual_seed(5)
    first = small_guide()
    torch.manual_seed(6)
    state = torch.random.get_rng_state()
    second = small_guide()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(first.category_queries[:4], randn(4, 64))
    assert first.content_queries.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_stored_network_answers_alike_and_copies_nothing() -> None:
    guide = small_guide(joint=32)
    stored = stored_guide(guide.state_dict(), CPU)
    tokens = randn(2, 7, 32)
    assert all(torch.equal(a, b) for a, b in zip(guide.prompts(tokens), stored.prompts(tokens), strict=True))
    assert stored.head.weight.data_ptr() == guide.head.weight.data_ptr()


def test_heads_are_about_64_wide_whatever_the_tower() -> None:
    assert [heads_for(width) for width in (64, 288, 512, 768)] == [1, 4, 8, 12]
