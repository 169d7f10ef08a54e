"""One cell of the memory benchmark, in a process of its own: reads a task as JSON, does one step, writes what it took.

Tensor suffixes: B images, C classes, D joint width, L tokens.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import LabelSet, Support
from adapters.clip import Backbone, load_backbone
from adapters.evaluation.memory import peak_memory
from adapters.learning.bonder import Sizes, bank_size, fresh_guide
from adapters.learning.text_guidance import Lesson, lesson_loss, targets
from adapters.learning.token_cache import support_tokens
from adapters.methods.self_tpt import SelfTPT, SelfTPTSettings
from adapters.methods.tgp_t import TGPTSettings
from adapters.text.causal import Enter
from adapters.text.chunked import backward_rows
from adapters.text.layout import PromptLayout, lay_out
from adapters.text.passes import TextPasses
from adapters.text.templates import CONTEXT_WORDS, PLAIN_TEMPLATE
from benchmarks.names import class_names

IMAGES = 32
"""Images of a step of CoOp; their features are given, so that no image tower is in the measurement."""
CHUNK = 64


@dataclass(frozen=True, slots=True)
class Task:
    """`way`: full-77, full, chunked, tgp-t or self-tpt."""

    backbone: str
    way: str
    classes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Cell:
    """Growth over the loaded backbone, MiB; seconds of the step."""

    rss_mib: float
    cuda_mib: float
    seconds: float


def padded(layout: PromptLayout, length: int) -> PromptLayout:
    """Every prompt as long as the context, as published implementations encode them."""
    pad = length - layout.ids_NL.shape[1]
    return PromptLayout(F.pad(layout.ids_NL, (0, pad)), layout.slots_NM, layout.eot_N)


class Plain(TextPasses):
    """The tower's own blocks, all of them on every position that is given: nothing shared, nothing cut."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone.text._passes._tower, None, device=backbone.device)

    def _whole(self, x_NLW: Tensor, end_N: Tensor, enter: Enter) -> Tensor:
        mask = self._tower.attn_mask[: x_NLW.shape[1], : x_NLW.shape[1]]
        for block in self._tower.transformer.resblocks:
            x_NLW = block(x_NLW, attn_mask=mask)
        return self._features(x_NLW[torch.arange(len(x_NLW)), end_N])


def coop_step(backbone: Backbone, names: list[str], way: str) -> Callable[[], object]:
    """One step of cross-entropy on a shared context."""
    text = backbone.text
    ctx = text.embed_tokens(text.tokens(CONTEXT_WORDS)).requires_grad_()
    layout = lay_out([text.tokens(name) for name in names], context=len(ctx), position="end", stop=text.tokens("."),
                     sot=text.sot, eot=text.eot)  # fmt: skip
    layout = padded(layout, text.context_length) if way == "full-77" else layout
    passes = Plain(backbone)
    features_BD = F.normalize(torch.randn(IMAGES, backbone.embed_dim), dim=-1).to(text.device)
    targets_B = torch.randint(len(names), (IMAGES,)).to(text.device)
    optimizer = torch.optim.AdamW([ctx], lr=1e-3)

    def encode(part: slice) -> Tensor:
        chosen = PromptLayout(layout.ids_NL[part], layout.slots_NM[part], layout.eot_N[part])
        if way == "chunked":
            return text.encode_prompts(ctx, chosen)
        return F.normalize(passes.prompts(ctx, chosen, None), dim=-1)

    def step() -> None:
        backward_rows(
            encode,
            len(layout),
            lambda rows_CD: F.cross_entropy(backbone.logit_scale * features_BD @ rows_CD.T, targets_B),
            chunk=CHUNK if way == "chunked" else len(layout),
        )
        optimizer.step()

    return step


def tgp_t_step(backbone: Backbone, names: list[str]) -> Callable[[], object]:
    """One step on the published 8 images, whose tokens are made before."""
    settings, text, side = TGPTSettings(), backbone.text, backbone.preprocess.size
    pixels = torch.randint(256, (settings.batch, 3, side, side), dtype=torch.uint8)
    labels_B = torch.randint(len(names), (settings.batch,))
    lesson = Lesson(
        support_tokens(backbone, Support(pixels, labels_B), views=0, seed=0),
        labels_B.to(backbone.device),
        targets([PLAIN_TEMPLATE.replace("{}", name) for name in names], text,
                bank_size(settings.category_queries, text.context_length)).to(backbone.device),
        targets(["a photo of something that stands on a table."] * settings.batch, text,
                bank_size(settings.content_queries, text.context_length)).to(backbone.device),
    )  # fmt: skip
    sizes = Sizes(backbone.embed_dim, text.width, lesson.category_CQ.shape[1], lesson.content_NQ.shape[1], len(names))
    rows_CD = F.normalize(torch.randn(len(names), backbone.embed_dim), dim=-1)
    guide = fresh_guide(sizes, words_nW=text.embed_tokens(text.tokens(CONTEXT_WORDS)), rows_CD=rows_CD, text_share=1.0,
                        seed=0, device=backbone.device)  # fmt: skip
    optimizer = torch.optim.AdamW(guide.parameters(), lr=1e-4)
    rows_B = torch.arange(settings.batch, device=backbone.device)

    def step() -> None:
        lesson_loss(guide, lesson, rows_B, torch.zeros_like(rows_B), backbone).backward()
        optimizer.step()

    return step


def prepared(task: Task, backbone: Backbone) -> Callable[[], object]:
    names = class_names(task.classes)
    if task.way == "self-tpt":
        adapter = SelfTPT(SelfTPTSettings(steps=2), backbone)
        return lambda: adapter.adapt(LabelSet.of(*names), backbone)
    if task.way == "tgp-t":
        return tgp_t_step(backbone, names)
    return coop_step(backbone, names, task.way)


def main() -> None:
    task = Task(**json.load(sys.stdin))
    torch.manual_seed(0)
    torch.set_num_threads(task.threads)
    backbone = load_backbone(task.backbone)
    backbone.text.encode_texts(["a photo of a thing."])
    work = prepared(task, backbone)
    with peak_memory() as peak, torch.enable_grad():
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    json.dump(asdict(Cell(peak.rss_mib, peak.cuda_mib, seconds)), sys.stdout)


if __name__ == "__main__":
    main()
