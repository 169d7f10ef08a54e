"""Method name to adapter: the one list of what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

from adapters.base import Adapter, InfoValue
from adapters.clip import Backbone
from adapters.errors import OptionError
from adapters.methods.coop import CoOp, CoOpSettings
from adapters.methods.dapt import DAPT, DAPTSettings
from adapters.methods.maple import MaPLe, MaPLeSettings
from adapters.methods.quantized import Quantized, QuantizedSettings
from adapters.methods.self_tpt import SelfTPT, SelfTPTSettings
from adapters.methods.tgp_t import TGPT, TGPTSettings
from adapters.methods.tpt import TPT, TPTSettings
from adapters.methods.zero_shot import ZeroShot, ZeroShotSettings

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Method:
    """One entry: what it is, its settings type, how it is built."""

    summary: str
    settings: type[Any]
    build: Callable[[Any, Backbone], Adapter]
    learns_prompts: bool = True
    support: int = 0
    """Support images that every class must have."""
    captions: bool = False
    """Whether captions of support images are used where they are given."""
    image_tokens: bool = False
    """Whether the image tower must be promptable."""
    open_set: bool = True
    """Whether classes can be added without support images for them."""
    scores_images: bool = False
    """Whether every image costs more than one tower pass and a product with fixed class weights."""

    @property
    def needs(self) -> dict[str, int | bool]:
        """What it takes to use it, as plain data."""
        facts = ("learns_prompts", "support", "captions", "image_tokens", "open_set", "scores_images")
        return {fact: getattr(self, fact) for fact in facts}


METHODS: Mapping[str, Method] = {
    "zero-shot": Method(
        "Features of hand-written prompts; nothing is learnt.",
        ZeroShotSettings,
        ZeroShot,
        learns_prompts=False,
    ),
    "self-tpt": Method(
        "Context adapted once per label set by contrasting the class names (Self-TPT).", SelfTPTSettings, SelfTPT
    ),
    "tpt": Method(
        "Context tuned for every image on the entropy of its views (TPT), or their vote: the costly baseline.",
        TPTSettings,
        TPT,
        scores_images=True,
    ),
    "coop": Method(
        "Context learnt from a few labelled images by cross-entropy (CoOp).",
        CoOpSettings,
        CoOp,
        support=1,
    ),
    "dapt": Method(
        "CoOp with visual prompts, classes spread out and the images of a class gathered (DAPT).",
        DAPTSettings,
        DAPT,
        support=1,
    ),
    "maple": Method(
        "Coupled prompts, several blocks deep, in both towers, learnt from a few labelled images (MaPLe).",
        MaPLeSettings,
        MaPLe,
        support=1,
        image_tokens=True,
    ),
    "quantized": Method(
        "Prompts of 1 to 8 bits (Quantized Prompt) over `host` coop, maple or self-tpt. Needs what its host needs: "
        "self-tpt no support images, maple an image tower that takes prompts.",
        QuantizedSettings,
        Quantized,
        support=1,
    ),
    "tgp-t": Method(
        "Prompts made from each image's tokens, taught by class texts and captions; a head row per class (TGP-T).",
        TGPTSettings,
        TGPT,
        support=1,
        captions=True,
        image_tokens=True,
        open_set=False,
        scores_images=True,
    ),
}
METHOD_NAMES: tuple[str, ...] = tuple(METHODS)


def resolve(name: str, backbone: Backbone) -> str:
    """`auto` is self-tpt where the backbone's text tower can learn prompts, else zero-shot."""
    if name == AUTO:
        return "self-tpt" if backbone.text.promptable else "zero-shot"
    if name not in METHODS:
        raise OptionError(f"no adapter {name!r}; there are {', '.join((*METHODS, AUTO))}", field="adapter")
    return name


def create_adapter(name: str, backbone: Backbone, options: Mapping[str, InfoValue] | None = None) -> Adapter:
    """An adapter for one backbone. Raises `OptionError` for an unknown method or option, or a value out of place."""
    method_name = resolve(name, backbone)
    method = METHODS[method_name]
    if method.learns_prompts and not backbone.text.promptable:
        raise OptionError(f"adapter {method_name!r} cannot learn prompts for backbone {backbone.name}", field="adapter")
    if method.image_tokens and not backbone.image.promptable:
        raise OptionError(
            f"adapter {method_name!r} needs tokens, and backbone {backbone.name} has none to offer", field="adapter"
        )
    return method.build(_settings(method.settings, options or {}), backbone)


def describe_methods() -> list[dict[str, Any]]:
    """Name, summary and options with their defaults of each method, as plain data."""
    return [
        {
            "name": name,
            "summary": method.summary,
            "options": {f.name: f.default for f in fields(method.settings)},
            "needs": method.needs,
        }
        for name, method in METHODS.items()
    ]


def _settings(kind: type[Any], options: Mapping[str, InfoValue]) -> Any:
    hints = get_type_hints(kind)
    for key, value in options.items():
        if key not in hints:
            known = ", ".join(hints)
            raise OptionError(f"no option {key!r}; there are {known}", field=f"options.{key}")
        _check_type(key, value, hints[key])
    try:
        return kind(**{key: float(value) if hints[key] is float else value for key, value in options.items()})
    except ValueError as error:
        raise OptionError(str(error), field="options") from error


def _check_type(key: str, value: InfoValue, hint: Any) -> None:
    if get_origin(hint) is not None:
        fits, wanted = value in get_args(hint), " or ".join(map(repr, get_args(hint)))
    elif hint is float:
        fits, wanted = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    else:
        fits, wanted = isinstance(value, hint) and (hint is bool or not isinstance(value, bool)), hint.__name__
    if not fits:
        raise OptionError(f"option {key!r} must be {wanted}, not {value!r}", field=f"options.{key}")
