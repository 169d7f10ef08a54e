"""The fast text pass equals open_clip's, and cached pieces add up to whole prompts."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from open_clip import CLIP

from adapters.training.corpus import SIMPLE_TEMPLATES, templates
from adapters.training.optimize import encode_bucketed
from adapters.training.tower import PromptTokenizer, converted_once, encode_continued, encode_text, tokenizer

NAMES = ["dog", "St. Bernard", "jack-o'-lantern", "great white shark", "word " * 40, "t-shirt"]


def test_the_trimmed_text_pass_equals_open_clips(model: CLIP) -> None:
    tokens = tokenizer()(["zebra", "a photo of a very large grey dog on a beach."])
    with torch.no_grad():
        whole = F.normalize(model.encode_text(tokens), dim=-1)
        assert torch.allclose(encode_text(model, tokens, torch.float32), whole, atol=1e-5)
        assert torch.allclose(encode_text(model, tokens), whole, atol=2e-2)


def test_pieces_of_a_prompt_add_up_to_the_tokens_of_the_whole() -> None:
    prompts = [(template, name) for template in (*SIMPLE_TEMPLATES, *templates(), "{}") for name in NAMES]
    whole = tokenizer()([template.format(name) for template, name in prompts])
    assert torch.equal(PromptTokenizer()(prompts), whole)


def test_a_shared_beginning_is_passed_through_once_with_the_same_result(model: CLIP) -> None:
    tokens = tokenizer()([f"a photo of a {name}." for name in NAMES])
    shared = 1 + PromptTokenizer().length("a photo of a ")
    with torch.no_grad():
        whole = encode_text(model, tokens, torch.float32)
        assert torch.allclose(encode_continued(model, shared, tokens, torch.float32), whole, atol=1e-5)
        assert torch.allclose(encode_bucketed(model, tokens, shared), whole, atol=2e-2)


def test_converted_weights_pass_their_gradients_on_and_are_forgotten(model: CLIP) -> None:
    tokens = tokenizer()(["zebra", "a photo of a dog."])
    weight = model.transformer.resblocks[0].mlp.c_fc.weight
    gradients = []
    for context in (nullcontext(), converted_once()):
        with context:
            loss = sum(encode_text(model, part)[:, 0].sum() for part in tokens.split(1))
        gradients.append(torch.autograd.grad(loss, weight)[0])
    assert torch.allclose(*gradients, rtol=0.1, atol=1e-3 * float(gradients[0].abs().max()) * 10)
    with torch.no_grad():
        before = encode_text(model, tokens)
        weight.mul_(0)
        assert not torch.equal(encode_text(model, tokens), before)
