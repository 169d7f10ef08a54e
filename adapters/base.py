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

from adapters.errors import LabelSetError, SupportError

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


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """A few labelled images for the methods that learn from them: uint8 pixels [N, 3, S, S], class rows [N], and per
    image a caption or None. `captions` is empty or has one entry per image."""

    pixels: Tensor
    labels: Tensor
    captions: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels) or len(self.captions) not in (0, len(self.labels)):
            raise SupportError(
                f"{len(self.pixels)} images, {len(self.labels)} labels and {len(self.captions)} captions do not match"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def per_class(self, classes: int) -> Tensor:
        """Images of each class, [classes]."""
        return torch.bincount(self.labels, minlength=classes)


@dataclass(frozen=True, slots=True)
class ImageNeeds:
    """What a class state asks of the image path. Holds no tensors: equality makes it the batching key.

    views: images per image: the standard view first, then random crops (`Preprocess.views`).
    prompts, layers, before_norm: shape of the visual prompts that the image tower runs with; 0 prompts for none.
    scored_by: name of the `ImageAdapter` whose `logits` take the place of a product with the class weights, or "".
    """

    views: int = 1
    prompts: int = 0
    layers: int = 0
    before_norm: bool = False
    scored_by: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class VisualPrompts:
    """Learnt tokens for the image tower: float32 [J, P, V] for all images, or [B, J, P, V] one set per image.

    The P tokens of layer 0 are added to the sequence after position embedding (before the first norm, or after it);
    those of layers 1 to J - 1 take their place at the entrance of that block. V is the tower's token width.
    """

    tokens: Tensor
    before_norm: bool = False


PLAIN = ImageNeeds()

VISUAL_PROMPTS, VISUAL_PROMPTS_BEFORE_NORM = "visual_prompts", "visual_prompts_before_norm"
"""Names under which a class state keeps visual prompts among its extras."""


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

    @property
    def visual_prompts(self) -> VisualPrompts | None:
        """The visual prompts among the extras, [J, P, V]."""
        for name, before_norm in ((VISUAL_PROMPTS, False), (VISUAL_PROMPTS_BEFORE_NORM, True)):
            if name in self.extras:
                return VisualPrompts(self.extras[name], before_norm)
        return None


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


@runtime_checkable
class ImageAdapter(Adapter, Protocol):
    """A method whose scores depend on the image in more than a product with fixed class weights."""

    def logits(self, pixels: Tensor, state: ClassState, backbone: Backbone) -> Tensor:
        """uint8 pixels [B, 3, S, S], or [B, V, 3, S, S] when `needs(state).views` is V > 1, to logits [B, C] float32.
        Row b depends on image b only, whatever else is in the batch."""
        ...


def needs_of(state: ClassState) -> ImageNeeds:
    """The needs of a state whose images are scored by a product with its class weights."""
    prompts = state.visual_prompts
    if prompts is None:
        return PLAIN
    layers, count = prompts.tokens.shape[:2]
    return ImageNeeds(prompts=count, layers=layers, before_norm=prompts.before_norm)


def cosine_logits(features_BD: Tensor, state: ClassState) -> Tensor:
    """Logits [B, C] of unit image features [B, D]."""
    return state.logit_scale * (features_BD @ state.weights.to(features_BD.device).T)


def independent_logits(features_BD: Tensor, state: ClassState) -> Tensor:
    """Logits [B, C] of "this class rather than nothing in particular", each class judged on its own."""
    background_B1 = features_BD @ state.background.to(features_BD.device)[:, None]
    return cosine_logits(features_BD, state) - state.logit_scale * background_B1
