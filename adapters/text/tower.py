"""The text tower of a CLIP model, opened where the methods need to reach in. It equals open_clip's own encoder.

Tensor suffixes: N prompts, L tokens, M context tokens, W text width, D joint width.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.base import LabelSet
from adapters.errors import BackboneError
from adapters.text.causal import CausalBlocks
from adapters.text.chunked import Slices, Tick, nothing
from adapters.text.features import TextFeatures
from adapters.text.layout import PromptLayout
from adapters.text.limits import PROMPT_RESERVE, check_texts
from adapters.text.passes import TextPasses
from adapters.text.tokens import AT_ONCE, Tokens

BLOCK = 4096
"""Texts whose shared beginnings are looked for, and whose features are held, together."""

CLOSED_ROWS = 64
"""Texts per pass of a tower that could not be opened."""

USUAL_TOKENS = 6
"""Of a prompt, behind what it shares with others."""


class TextTower:
    """Texts and prompts with learnable context to unit text features. Frozen; gradients flow to the context only.

    A causal tower that pools at end-of-text does not see what follows, so sequences are cut there, and what they begin
    with alike is computed once: the same features for a fraction of the work.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, device: torch.device) -> None:
        self._encode_text: Callable[[Tensor], Tensor] = model.encode_text  # type: ignore[assignment]  # untyped open_clip
        self._tokens = Tokens(tokenizer)
        self._features: TextFeatures | None = None
        self._count = _Count()
        tower: Any = getattr(model, "text", model)  # CustomTextCLIP keeps its text tower one level deeper
        self.device = device
        self.context_length: int = int(getattr(tokenizer, "context_length", 77))
        self.promptable = _is_promptable(tower, tokenizer)
        if self.promptable:
            self.sot: int = tokenizer.sot_token_id
            self.eot: int = tokenizer.eot_token_id
            self.width: int = int(tower.token_embedding.weight.shape[1])
            self.depth: int = len(tower.transformer.resblocks)
            self._passes = TextPasses(tower, CausalBlocks.of(tower), device=device)

    def remembering(self, features: TextFeatures) -> TextTower:
        """The same tower, which takes from `features` what it has encoded before. Counts are shared."""
        tower = copy.copy(self)
        tower._features = features
        return tower

    @property
    def prompts_encoded(self) -> int:
        """Prompts that went through the tower; what was remembered did not."""
        return self._count.prompts

    @prompts_encoded.setter
    def prompts_encoded(self, prompts: int) -> None:
        self._count.prompts = prompts

    @property
    def max_name_tokens(self) -> int:
        return self.context_length - PROMPT_RESERVE

    def tokens(self, text: str) -> list[int]:
        """Token ids of a piece of text without start and end marks."""
        self._require_promptable()
        return self._tokens.of(text)

    def check(self, labels: LabelSet, *, tick: Tick = nothing) -> None:
        """Raises `LabelSetError` if a name, alias, description or template of the set does not fit. Runs no model."""
        if self.promptable:
            check_texts(labels, self._tokens.of, specials={self.sot, self.eot}, context=self.context_length, tick=tick)

    def slices(self, layout: PromptLayout, *, held: int) -> Slices:
        """Rows of this layout that take a bounded time; at most `held` have a graph at once."""
        rest = layout.longest_rest
        graph = self._passes.rows_at_once(rest, graph=True)
        return Slices(self._passes.rows_at_once(rest), min(graph, held), held)

    def text_ticks(self, texts: int) -> int:
        """About how often encoding so many short texts ticks."""
        rows = self._passes.rows_at_once(USUAL_TOKENS) if self.promptable else CLOSED_ROWS
        return math.ceil(texts / AT_ONCE) + math.ceil(texts / rows)

    def encode_texts(self, texts: Sequence[str], *, tick: Tick | None = None, unit: bool = True) -> Tensor:
        """Plain texts to float32 rows [N, D]; `tick` is called between slices. Rows are unit vectors unless `unit` is
        false: then they keep the tower's own lengths."""

        def compute(places: Sequence[int]) -> Tensor:
            return self._encoded([texts[place] for place in places], tick or nothing)

        features_ND = self._remembered((), texts, compute)
        return F.normalize(features_ND, dim=-1) if unit else features_ND

    def encode_templated(self, names: Sequence[str], templates: Sequence[str], *, tick: Tick | None = None) -> Tensor:
        """Sums [N, D] of the unit features of each name in every template; they stand for all templates at once."""

        def compute(places: Sequence[int]) -> Tensor:
            step, sums_ND = max(1, BLOCK // len(templates)), torch.empty(0)
            for start in range(0, len(places), step):
                part = [names[place] for place in places[start : start + step]]
                texts = [template.replace("{}", name) for name in part for template in templates]
                features_ND = F.normalize(self._encoded(texts, tick or nothing), dim=-1)
                if start == 0:
                    sums_ND = features_ND.new_empty(len(places), features_ND.shape[-1])
                sums_ND[start : start + step] = features_ND.view(len(part), len(templates), -1).sum(dim=1)
            return sums_ND

        return self._remembered(("templates", *templates), names, compute)

    def seconds_per_prompt(self, texts: int = 32) -> float:
        """Measured here and now, the better of two passes; they count for nobody."""
        counted, best = self._count.prompts, math.inf
        for number in range(2):
            began = time.perf_counter()
            self._encoded([f"a photo of a thing {number}{place}." for place in range(texts)], nothing)
            best = min(best, time.perf_counter() - began)
        self._count.prompts = counted
        return best / texts

    def embed_tokens(self, ids: Iterable[int]) -> Tensor:
        """Token embeddings [n, W] float32, the usual start of learnable context."""
        return self.token_embeddings[torch.tensor(list(ids), device=self.device)].float()

    def encode_prompts(self, ctx_MW: Tensor, layout: PromptLayout, *, deep_IMW: Tensor | None = None) -> Tensor:
        """Prompts with `ctx_MW` written into their free slots, to float32 unit rows [N, D]; differentiable in ctx.
        A context [N, M, W] holds a prompt's own. Row i of `deep_IMW` takes the place of the hidden states of the slots
        at the entrance of block i + 1."""
        self._require_promptable()
        self._count.prompts += len(layout)
        return F.normalize(self._passes.prompts(ctx_MW, layout, deep_IMW), dim=-1)

    def encode_sequences(self, slots_NMW: Tensor, *, stop: Sequence[int]) -> Tensor:
        """Sequences of their own for every row: start, the M given embeddings, the embeddings of `stop`, end; to
        float32 rows [N, D] of the tower's own lengths. Differentiable in the given embeddings."""
        self._require_promptable()
        n, slots = slots_NMW.shape[:2]
        if slots + len(stop) + 2 > self.context_length:
            raise BackboneError(f"{slots} embeddings do not fit a context of {self.context_length} tokens")
        frozen = self.embed_tokens([self.sot, *stop, self.eot]).expand(n, -1, -1)
        self._count.prompts += n
        return self._passes.embedded(torch.cat([frozen[:, :1], slots_NMW, frozen[:, 1:]], dim=1))

    @property
    def token_embeddings(self) -> Tensor:
        """The frozen table [vocabulary, W] in the tower's precision."""
        self._require_promptable()
        return self._passes.table.detach()

    @torch.no_grad()
    def _encoded(self, texts: Sequence[str], tick: Tick) -> Tensor:
        """Rows [N, D] of the tower's own lengths, all of them computed."""
        rows = []
        for start in range(0, len(texts), BLOCK):
            parts = []
            for ids_nL in self._tokens.matrices(texts[start : start + BLOCK]):
                parts.append(ids_nL)
                tick()
            rows.append(self._encode_ids(torch.cat(parts), tick))
        return torch.cat(rows)

    def _encode_ids(self, ids_NL: Tensor, tick: Tick) -> Tensor:
        self._count.prompts += len(ids_NL)
        if self.promptable:
            return self._passes.texts(ids_NL, (ids_NL == self.eot).int().argmax(dim=-1), tick)
        rows = []
        for ids_nL in ids_NL.split(CLOSED_ROWS):
            rows.append(self._encode_text(ids_nL.to(self.device)).float())
            tick()
        return torch.cat(rows)

    def _remembered(self, kind: Sequence[str], texts: Sequence[str], compute: Callable[[Sequence[int]], Tensor]
                    ) -> Tensor:  # fmt: skip
        if self._features is None or not texts:
            return compute(range(len(texts)))
        return self._features.rows(kind, texts, compute).to(self.device)

    def _require_promptable(self) -> None:
        if not self.promptable:
            raise BackboneError(
                "this backbone's text tower is not a native causal CLIP transformer with BPE tokens: prompts cannot be "
                "learnt for it; use the zero-shot adapter"
            )


@dataclass(slots=True)
class _Count:
    prompts: int = 0


def _is_promptable(tower: Any, tokenizer: Any) -> bool:
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))  # CLIP and TextTransformer name it apart
    return (
        all(hasattr(tower, part) for part in ("token_embedding", "positional_embedding", "transformer", "ln_final"))
        and getattr(tower, "attn_mask", None) is not None
        and getattr(tower, "cls_emb", None) is None
        and not getattr(tower, "use_pad_mask", False)
        and pool in ("argmax", "eos")
        and hasattr(tokenizer, "eot_token_id")
        and hasattr(tokenizer, "encode")
    )
