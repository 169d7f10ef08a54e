"""The network of TGP-T (AAAI 2024, arXiv 2312.06401): prompts made from an image's tokens, and a head on what the
frozen text tower reads in them. Its size and memory do not depend on the number of classes, the head's rows apart.

Tensor suffixes: B images, Q queries, T image tokens, D joint width, W text width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.text.tower import TextTower

HEAD_WIDTH = 64
PUBLISHED_CONTEXT = 77
"""Context length for which the published bank sizes were chosen."""
QUERY_DEVIATION = 0.02


def bank_size(wanted: int, context_length: int) -> int:
    """Queries in proportion to the tower's context; start, full stop and end must fit beside them."""
    return max(1, min(round(wanted * min(1.0, context_length / PUBLISHED_CONTEXT)), context_length - 3))


def heads_for(width: int) -> int:
    """The number of equal heads whose width comes nearest to the published 64."""
    return min((n for n in range(1, width + 1) if width % n == 0), key=lambda n: abs(n - width / HEAD_WIDTH))


class Linear(nn.Linear):
    """Without a start of its own, which costs time: `fresh_guide` draws it, or it is loaded."""

    def reset_parameters(self) -> None: ...


class Bonder(nn.Module):
    """Queries look at one another, then at the image tokens, which are keys and values as they are, then pass a
    feed-forward layer. One block, every part a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads_for(width)
        self.norm_self, self.norm_cross, self.norm_forward = (nn.LayerNorm(width) for _ in range(3))
        self.norm_tokens = nn.LayerNorm(width)
        self.mix = Linear(width, 3 * width, bias=False)
        self.mix_out = Linear(width, width)
        self.look = Linear(width, width, bias=False)
        self.look_out = Linear(width, width)
        self.widen = Linear(width, width)
        self.narrow = Linear(width, width)

    def forward(self, queries_BQW: Tensor, tokens_BTW: Tensor) -> Tensor:
        x = queries_BQW + self._mixed(self.norm_self(queries_BQW))
        x = x + self._seen(self.norm_cross(x), self.norm_tokens(tokens_BTW))
        out: Tensor = x + self.narrow(F.gelu(self.widen(self.norm_forward(x))))
        return out

    def _mixed(self, x_BQW: Tensor) -> Tensor:
        split = self.mix(x_BQW).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*split.unbind(0)).transpose(1, 2).flatten(2)
        out: Tensor = self.mix_out(mixed)
        return out

    def _seen(self, x_BQW: Tensor, tokens_BTW: Tensor) -> Tensor:
        scale = math.sqrt(x_BQW.shape[-1] // self.heads)  # a single head, at the scale of one of many
        attention_BQT = (self.look(x_BQW) @ tokens_BTW.transpose(1, 2) / scale).softmax(dim=-1)
        out: Tensor = self.look_out(attention_BQT @ tokens_BTW)
        return out


@dataclass(frozen=True, slots=True)
class Sizes:
    """joint: width of image and text features; text: width of the text tower's tokens."""

    joint: int
    text: int
    category: int
    content: int
    classes: int


class TextGuide(nn.Module):
    """Two banks of queries with a Bonder each, and the head over image and text features. Where the towers' widths
    differ, a learnt map brings the image tokens to the text tower's width."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.category_queries = nn.Parameter(torch.empty(sizes.category, sizes.text))
        self.content_queries = nn.Parameter(torch.empty(sizes.content, sizes.text))
        self.category_bonder, self.content_bonder = Bonder(sizes.text), Bonder(sizes.text)
        same = sizes.joint == sizes.text
        self.tokens_in = nn.Identity() if same else Linear(sizes.joint, sizes.text)
        self.head = Linear(2 * sizes.joint, sizes.classes, bias=False)
        self.register_buffer("text_share", torch.ones(()))
        self.text_share: Tensor

    @staticmethod
    def start_of_head(rows_CD: Tensor) -> Tensor:
        """Zero-shot scores of the image feature and of the text feature alike, unit rows [C, 2D]."""
        return F.normalize(torch.cat([rows_CD, rows_CD], dim=-1), dim=-1)

    def prompts(self, tokens_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Category-wise and content-wise prompts of each image, [B, Q, W] with a Q of their own."""
        tokens_BTW, images = self.tokens_in(tokens_BTD), len(tokens_BTD)
        category = self.category_bonder(self.category_queries.expand(images, -1, -1), tokens_BTW)
        content = self.content_bonder(self.content_queries.expand(images, -1, -1), tokens_BTW)
        return category, content

    def fused(self, cls_BD: Tensor, prompts: Sequence[Tensor], text: TextTower) -> Tensor:
        """Image and text feature side by side under one common norm, [B, 2D]: their lengths set their shares."""
        stop = text.tokens(".")
        read_BD = torch.stack([text.encode_sequences(bank, stop=stop) for bank in prompts]).mean(dim=0)
        return F.normalize(torch.cat([cls_BD, self.text_share * read_BD], dim=-1), dim=-1)


def fresh_guide(
    sizes: Sizes, *, words_nW: Tensor, rows_CD: Tensor, text_share: float, seed: int, device: torch.device
) -> TextGuide:
    """Seeded start without touching global random state. The category-wise bank begins with the embeddings of given
    words, the head with the class texts' features, so that it starts as zero-shot scores of both features."""
    guide = TextGuide(sizes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in (m for m in guide.modules() if isinstance(m, nn.Linear)):
            bound = 1 / math.sqrt(module.in_features)
            for parameter in module.parameters(recurse=False):
                parameter.uniform_(-bound, bound, generator=generator)
        for bank in (guide.category_queries, guide.content_queries):
            bank.normal_(0, QUERY_DEVIATION, generator=generator)
        known = min(len(words_nW), sizes.category)
        guide.category_queries[:known] = words_nW[:known].cpu()
        guide.head.weight.copy_(guide.start_of_head(rows_CD))
        guide.text_share.fill_(text_share)
    return guide.to(device)


def stored_guide(tensors: Mapping[str, Tensor], device: torch.device) -> TextGuide:
    """The network around stored tensors, which it shares where they are on the device already."""
    head_CE, category_QW = tensors["head.weight"], tensors["category_queries"]
    sizes = Sizes(
        joint=head_CE.shape[1] // 2,
        text=category_QW.shape[1],
        category=len(category_QW),
        content=len(tensors["content_queries"]),
        classes=len(head_CE),
    )
    with torch.device("meta"):
        guide = TextGuide(sizes)
    guide.load_state_dict({key: value.to(device) for key, value in tensors.items()}, assign=True)
    return guide.requires_grad_(False)
