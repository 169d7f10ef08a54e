"""The fast text pass equals open_clip's, and cached pieces add up to whole prompts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip import CLIP

from adapters.training.corpus import SIMPLE_TEMPLATES, templates
from adapters.training.tower import PromptTokenizer, encode_text, tokenizer

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
