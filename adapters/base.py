"""The values and contracts that every method shares.

Tensor suffixes: B images, C classes, D joint embedding width, M context tokens, S image side, W text width.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from adapters.errors import LabelSetError

if TYPE_CHECKING:
    from adapters.clip import Backbone

Progress = Callable[[float], None]
"""Called on the adapting thread between slices with the fraction done, 0 to 1. It may run other work on that thread
(the service serves waiting images there) and may raise `AdaptationCancelled`."""

InfoValue = str | int | float | bool


def clean_text(text: str) -> str:
    """NFC, white space folded to single blanks, ends trimmed: the form in which texts are compared and hashed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def is_visible(text: str) -> bool:
    """Whether anything but blanks and control or format characters is in it."""
    return any(unicodedata.category(character)[0] not in "CZ" for character in text)


@dataclass(frozen=True, slots=True)
class ClassName:
    """One class: the name that answers carry, and optional further texts that describe it."""

    name: str
    aliases: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, aliases: tuple[str, ...] = (), descriptions: tuple[str, ...] = ()) -> ClassName:
        return cls(clean_text(name), tuple(map(clean_text, aliases)), tuple(map(clean_text, descriptions)))


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Ordered class names, immutable. `templates` override a method's own prompt templates (each contains `{}`).

    Raises `LabelSetError` for an empty set, an empty name, a duplicate name (compared case-insensitively) or a
    template without a slot, before any model work is done.
    """

    classes: tuple[ClassName, ...]
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.classes:
            raise LabelSetError("a label set needs at least one class")
        seen: dict[str, int] = {}
        for index, entry in enumerate(self.classes):
            if not is_visible(entry.name):
                raise LabelSetError("a class name is empty", field=f"classes[{index}].name")
            first = seen.setdefault(entry.name.casefold(), index)
            if first != index:
                raise LabelSetError(
                    f"{entry.name!r} is given twice (places {first} and {index})", field=f"classes[{index}].name"
                )
        for index, template in enumerate(self.templates):
            if template.count("{}") != 1:
                raise LabelSetError(f"template {template!r} needs exactly one {{}}", field=f"templates[{index}]")

    @classmethod
    def of(cls, *names: str, templates: tuple[str, ...] = ()) -> LabelSet:
        return cls(tuple(ClassName.of(name) for name in names), templates)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.classes)

    @property
    def id(self) -> str:
        """SHA-256 of the canonical content, hex. Order counts, since answers follow it."""
        content = {
            "classes": [[c.name, list(c.aliases), list(c.descriptions)] for c in self.classes],
            "templates": list(self.templates),
        }
        return content_hash(content)


def content_hash(content: object) -> str:
    """SHA-256 of the canonical JSON form of plain data (sorted keys, no blanks, UTF-8)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Support:
    """A few labelled images for the methods that learn from them: uint8 pixels [N, 3, S, S] and class rows [N]."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class ImageNeeds:
    """What a class state asks of the image path. Holds no tensors: equality makes it the batching key."""

    views: int = 1
    prompts: int = 0
    tokens: bool = False


PLAIN = ImageNeeds()


@dataclass(frozen=True, slots=True, eq=False)
class ClassState:
    """Everything one adapter learnt about one label set. A recomputable value; never changed after it was made.

    weights: [C, D] float32, unit rows, in label order.
    background: [D] float32, unit; the reference direction of "no class in particular" for independent scores.
    logit_scale: factor from cosine to logit.
    extras: further tensors a method wants back (a learnt context, say).
    info: plain facts for answers and logs: steps, losses, which source prompts were used.
    """

    adapter: str
    version: str
    weights: Tensor
    background: Tensor
    logit_scale: float
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    info: Mapping[str, InfoValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.weights.dtype == torch.float32
        assert self.weights.ndim == 2
        assert not self.weights.requires_grad

    @property
    def nbytes(self) -> int:
        tensors = [self.weights, self.background, *self.extras.values()]
        return sum(t.numel() * t.element_size() for t in tensors)


@runtime_checkable
class Adapter(Protocol):
    """One method, ready to use with one backbone. Never changes after it was made, nor changes the backbone."""

    name: str
    version: str
    """Hash of method, settings and checkpoint: the same version gives the same class state for the same label set."""

    def needs(self, state: ClassState) -> ImageNeeds: ...

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        """Deterministic for one version on one machine. Raises `LabelSetError` before any model work when a class
        cannot be encoded, `AdaptationDiverged` when the result is not finite."""
        ...


def cosine_logits(features_BD: Tensor, state: ClassState) -> Tensor:
    """Logits [B, C] of unit image features [B, D]."""
    return state.logit_scale * (features_BD @ state.weights.to(features_BD.device).T)


def independent_logits(features_BD: Tensor, state: ClassState) -> Tensor:
    """Logits [B, C] of "this class rather than nothing in particular", each class judged on its own."""
    background_B1 = features_BD @ state.background.to(features_BD.device)[:, None]
    return cosine_logits(features_BD, state) - state.logit_scale * background_B1
