"""The two towers of a CLIP model, opened where the methods need to reach in. They equal open_clip's own encoders.

Tensor suffixes: N prompts, L tokens, M context tokens, W text width, B images, S image side, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.base import LabelSet, VisualPrompts
from adapters.errors import BackboneError, LabelSetError
from adapters.layout import PromptLayout
from adapters.vision.sequence import TokenTower, check_prompts

PROMPT_RESERVE = 12
"""Tokens kept free around a class name: start, end, and the longest hand-written template in use."""


class ImageTower:
    """Pixels to unit image features. Frozen. Where the tower could be opened, learnt prompts join its tokens.

    `closed` is the reason why it could not be.
    """

    def __init__(self, encode_image: Callable[[Tensor], Tensor], mean: Sequence[float], std: Sequence[float], *,
                 device: torch.device, dtype: torch.dtype, tokens: TokenTower | None = None,
                 closed: str = "its image tower was not opened") -> None:  # fmt: skip
        self._encode_image = encode_image
        self._mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, -1, 1, 1)
        self._tokens, self._closed = tokens, closed
        self.device = device
        self.dtype = dtype

    @property
    def promptable(self) -> bool:
        """Whether visual prompts and tokens can be had from this tower."""
        return self._tokens is not None

    @property
    def token_width(self) -> int:
        """Width V of its tokens, 0 without."""
        return self._tokens.token_width if self._tokens is not None else 0

    @property
    def depth(self) -> int:
        """Blocks that prompts can enter, 0 without."""
        return self._tokens.depth if self._tokens is not None else 0

    @property
    def tokens_version(self) -> str:
        """Hash of weights that the token path adds to the open_clip model, "" if it adds none."""
        return self._tokens.version if self._tokens is not None else ""

    def normalize(self, pixels_B3SS: Tensor) -> Tensor:
        """uint8 pixels to the tower's input. The same arithmetic, in the same order, as torchvision's ToTensor and
        Normalize, so that features are bit-equal to open_clip's own transform."""
        x = pixels_B3SS.to(self.device).to(torch.float32).div(255)
        return x.sub(self._mean).div(self._std).to(self.dtype)

    @torch.no_grad()
    def encode(self, pixels_B3SS: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] to float32 unit rows [B, D]."""
        features_BD = self._encode_image(self.normalize(pixels_B3SS))
        return F.normalize(features_BD.float(), dim=-1)

    @torch.no_grad()
    def stem(self, pixels_B3SS: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] to what comes before any prompt, one row per image: worth keeping when the same images
        pass with many prompts. Raises `BackboneError` when the tower is not promptable."""
        return self._opened().stem(self.normalize(pixels_B3SS))

    def encode_stem(self, stem: Tensor, prompts: VisualPrompts | None) -> Tensor:
        """Rows of `stem` to float32 unit rows [B, D]; differentiable in the prompts."""
        tokens = self._opened()
        if prompts is not None:
            check_prompts(prompts, images=len(stem), width=tokens.token_width, depth=tokens.depth)
        return F.normalize(tokens.features(stem, prompts).float(), dim=-1)

    @torch.no_grad()
    def encode_prompted(self, pixels_B3SS: Tensor, prompts: VisualPrompts | None) -> Tensor:
        """uint8 [B, 3, S, S] with prompts for all images or one set per image, to float32 unit rows [B, D]."""
        return self.encode_stem(self.stem(pixels_B3SS), prompts)

    @torch.no_grad()
    def stem_tokens(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of `stem` to float32 tokens [B, T, D] of the last block, projected but without the final norm, and
        image features [B, D]; neither normalised, since their lengths weigh in where they are joined."""
        tokens_BTD, features_BD = self._opened().tokens(stem)
        return tokens_BTD.float(), features_BD.float()

    def _opened(self) -> TokenTower:
        if self._tokens is None:
            raise BackboneError(f"this backbone cannot run visual prompts: {self._closed}")
        return self._tokens


class TextTower:
    """Texts and prompts with learnable context to unit text features. Frozen; gradients flow to the context only.

    A causal tower that pools at end-of-text does not see what follows, so sequences are cut at the longest prompt of
    the call: the same features for a fraction of the work.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, device: torch.device) -> None:
        self._encode_text: Callable[[Tensor], Tensor] = model.encode_text  # type: ignore[assignment]  # untyped open_clip
        self._tokenizer = tokenizer
        self._tower: Any = getattr(model, "text", model)  # CustomTextCLIP keeps its text tower one level deeper
        self.device = device
        self.prompts_encoded = 0
        self.context_length: int = int(getattr(tokenizer, "context_length", 77))
        self.promptable = _is_promptable(self._tower, tokenizer)
        if self.promptable:
            self.sot: int = tokenizer.sot_token_id
            self.eot: int = tokenizer.eot_token_id
            self.width: int = int(self._tower.token_embedding.weight.shape[1])
            self._dtype: torch.dtype = self._tower.transformer.get_cast_dtype()
            self.depth: int = len(self._tower.transformer.resblocks)

    @property
    def max_name_tokens(self) -> int:
        return self.context_length - PROMPT_RESERVE

    def tokens(self, text: str) -> list[int]:
        """Token ids of a piece of text without start and end marks."""
        self._require_promptable()
        return list(self._tokenizer.encode(text))

    def check(self, labels: LabelSet) -> None:
        """Raises `LabelSetError` if a name, alias, description or template of the set does not fit. Runs no model."""
        if not self.promptable:
            return
        specials = {self.sot, self.eot}
        longest = 0
        for index, entry in enumerate(labels.classes):
            for text in (entry.name, *entry.aliases):
                ids = self.tokens(text)
                longest = max(longest, len(ids))
                _check_ids(ids, specials, limit=self.max_name_tokens, text=text, field=f"classes[{index}].name")
            for text in entry.descriptions:
                _check_ids(self.tokens(text), specials, limit=self.context_length - 2, text=text,
                           field=f"classes[{index}].descriptions")  # fmt: skip
        for index, template in enumerate(labels.templates):
            room = self.context_length - 2 - longest
            _check_ids(self.tokens(template.replace("{}", "x")), specials, limit=room + 1, text=template,
                       field=f"templates[{index}]")  # fmt: skip

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], *, chunk: int = 256, tick: Callable[[], None] | None = None,
                     unit: bool = True) -> Tensor:  # fmt: skip
        """Plain texts to float32 rows [N, D], `chunk` at a time; `tick` is called between chunks. Rows are unit vectors
        unless `unit` is false: then they keep the tower's own lengths."""
        rows = []
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # similar lengths together: less padding
        for start in range(0, len(order), chunk):
            ids_NL = self._tokenizer([texts[i] for i in order[start : start + chunk]]).to(self.device)
            rows.append(self._encode_ids(ids_NL))
            if tick is not None:
                tick()
        features_ND = torch.cat(rows)
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        features_ND = features_ND[back.to(features_ND.device)]
        return F.normalize(features_ND, dim=-1) if unit else features_ND

    def embed_tokens(self, ids: Iterable[int]) -> Tensor:
        """Token embeddings [n, W] float32, the usual start of learnable context."""
        self._require_promptable()
        table: Tensor = self._tower.token_embedding.weight
        return table[torch.tensor(list(ids), device=self.device)].detach().float()

    def encode_prompts(self, ctx_MW: Tensor, layout: PromptLayout, *, deep_IMW: Tensor | None = None) -> Tensor:
        """Prompts with `ctx_MW` written into their free slots, to float32 unit rows [N, D]; differentiable in ctx.
        A context [N, M, W] holds a prompt's own. Row i of `deep_IMW` takes the place of the hidden states of the slots
        at the entrance of block i + 1."""
        self._require_promptable()
        ids_NL = layout.ids_NL.to(self.device)
        slots_NM1 = layout.slots_NM.to(self.device).unsqueeze(-1)
        embedded_NLW = self._tower.token_embedding(ids_NL).detach().to(self._dtype)
        n, width = ids_NL.shape[0], embedded_NLW.shape[-1]
        ctx_NMW = ctx_MW.to(embedded_NLW.dtype).expand(n, -1, -1)
        slots_NMW = slots_NM1.expand(-1, -1, width)
        x_NLW = embedded_NLW.scatter(1, slots_NMW, ctx_NMW)
        layers = [] if deep_IMW is None else list(deep_IMW.to(self._dtype).unsqueeze(1).expand(-1, n, -1, -1))
        return F.normalize(self._transform(x_NLW, layout.eot_N.to(self.device), slots_NMW, layers), dim=-1)

    def encode_sequences(self, slots_NMW: Tensor, *, stop: Sequence[int]) -> Tensor:
        """Sequences of their own for every row: start, the M given embeddings, the embeddings of `stop`, end; to
        float32 rows [N, D] of the tower's own lengths. Differentiable in the given embeddings."""
        self._require_promptable()
        n, slots = slots_NMW.shape[:2]
        if slots + len(stop) + 2 > self.context_length:
            raise BackboneError(f"{slots} embeddings do not fit a context of {self.context_length} tokens")
        frozen = self.embed_tokens([self.sot, *stop, self.eot]).expand(n, -1, -1)
        x_NLW = torch.cat([frozen[:, :1], slots_NMW, frozen[:, 1:]], dim=1).to(self._dtype)
        return self._transform(x_NLW, torch.full((n,), x_NLW.shape[1] - 1, device=self.device))

    @property
    def token_embeddings(self) -> Tensor:
        """The frozen table [vocabulary, W] in the tower's precision."""
        self._require_promptable()
        table: Tensor = self._tower.token_embedding.weight
        return table.detach()

    def _encode_ids(self, ids_NL: Tensor) -> Tensor:
        if not self.promptable:
            self.prompts_encoded += ids_NL.shape[0]
            features_ND: Tensor = self._encode_text(ids_NL).float()
            return features_ND
        eot_N = (ids_NL == self.eot).int().argmax(dim=-1)
        ids_NL = ids_NL[:, : int(eot_N.max()) + 1]
        return self._transform(self._tower.token_embedding(ids_NL).to(self._dtype), eot_N)

    def _transform(self, x_NLW: Tensor, eot_N: Tensor, slots_NMW: Tensor | None = None,
                   layers_NMW: Sequence[Tensor] = ()) -> Tensor:  # fmt: skip
        """Embedded tokens (without positions) to features, as open_clip's own encode_text does; `layers_NMW` are
        written over the slots at the entrance of the blocks from the second on."""
        tower = self._tower
        n, length = x_NLW.shape[:2]
        self.prompts_encoded += n
        x_NLW = x_NLW + tower.positional_embedding[:length].to(self._dtype)
        mask = tower.attn_mask[:length, :length]
        if slots_NMW is None or not layers_NMW:
            x_NLW = tower.transformer(x_NLW, attn_mask=mask)
        else:
            for index, block in enumerate(tower.transformer.resblocks):
                if 0 < index <= len(layers_NMW):
                    x_NLW = x_NLW.scatter(1, slots_NMW, layers_NMW[index - 1])
                x_NLW = block(x_NLW, attn_mask=mask)
        pooled_NW = tower.ln_final(x_NLW[torch.arange(n, device=x_NLW.device), eot_N])
        projection = tower.text_projection
        features_ND: Tensor = pooled_NW
        if projection is not None:
            features_ND = projection(pooled_NW) if isinstance(projection, nn.Linear) else pooled_NW @ projection
        return features_ND.float()

    def _require_promptable(self) -> None:
        if not self.promptable:
            raise BackboneError(
                "this backbone's text tower is not a native causal CLIP transformer with BPE tokens: prompts cannot be "
                "learnt for it; use the zero-shot adapter"
            )


def _check_ids(ids: Sequence[int], specials: set[int], *, limit: int, text: str, field: str) -> None:
    shown = text if len(text) <= 60 else text[:57] + "..."
    if not ids:
        raise LabelSetError(f"{shown!r} has no tokens that the backbone knows", field=field)
    if specials.intersection(ids):
        raise LabelSetError(f"{shown!r} contains a control token of the tokenizer", field=field)
    if len(ids) > limit:
        raise LabelSetError(f"{shown!r} has {len(ids)} tokens; at most {limit} fit the backbone's context", field=field)


def _is_promptable(tower: Any, tokenizer: Any) -> bool:
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))  # CLIP and TextTransformer name it apart
    return (
        all(hasattr(tower, part) for part in ("token_embedding", "positional_embedding", "transformer", "ln_final"))
        and getattr(tower, "attn_mask", None) is not None
        and getattr(tower, "cls_emb", None) is None
        and pool in ("argmax", "eos")
        and hasattr(tokenizer, "eot_token_id")
        and hasattr(tokenizer, "encode")
    )
