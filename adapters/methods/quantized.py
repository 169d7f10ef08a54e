"""Quantized Prompt (arXiv 2407.10704) over another method: its prompts are learnt through a quantiser of 1 to 8 bits,
or quantised once they are learnt, and what serves is made of the packed bytes alone.

The paper quantises MaPLe's prompts and the maps between its towers; here it is what a service stores, the prompts of
both towers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from adapters.base import ClassState, ImageNeeds, InfoValue, LabelSet, Progress, Support, needs_of
from adapters.checkpoint import settings_version
from adapters.clip import Backbone
from adapters.errors import OptionError
from adapters.methods.coop import CoOp, CoOpSettings
from adapters.methods.maple import MaPLe, MaPLeSettings
from adapters.methods.self_tpt import SelfTPT, SelfTPTSettings
from adapters.quantization.quantizer import INTERVAL, THRESHOLD, AfterTraining, StraightThrough
from adapters.quantization.stored_prompts import CONTEXT, PACKED, class_weights, packed_extras, packed_size, unpacked
from adapters.quantization.through import Through
from adapters.ranges import check_ranges

Host = Literal["coop", "maple", "self-tpt"]
DEFAULT_BITS: Mapping[str, int] = {"coop": 1, "maple": 4, "self-tpt": 4}
"""The paper's for CoOp and MaPLe, as its sizes tell."""

SHARED_CONTEXT: Mapping[str, Any] = {"class_specific": False, "steps": 100, "learning_rate": 2e-3}
"""The paper quantises the context that all classes share; a rate for that."""


@dataclass(frozen=True, slots=True)
class QuantizedSettings:
    host: Host = "coop"
    """Method whose prompts are quantised. coop and maple learn from support images, self-tpt from the names alone."""
    bits: int = 0
    """1 to 8 per scalar; 0 takes the host's default: 1 for coop, 4 for maple and self-tpt."""
    mode: Literal["qat", "ptq"] = "qat"
    """Quantised from the first step on, or once the fit is over."""
    steps: int = 0
    """0 takes the host's default, as with the rate."""
    learning_rate: float = 0.0
    interval: int = INTERVAL
    """Least steps between two clusterings."""
    threshold: float = THRESHOLD
    """Least drift of the histogram (KL, nats) for a new clustering."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self, bits=(0, 8), steps=(0, 1000), learning_rate=(0, 1), interval=(1, 10_000), threshold=(0, 100),
            seed=(0, 2**63 - 1),
        )  # fmt: skip

    @property
    def chosen_bits(self) -> int:
        return self.bits or DEFAULT_BITS[self.host]


class Quantized:
    """A host whose prompts pass a quantiser. Class weights always come from the dequantised prompts, so that a state
    that is rebuilt from its packed bytes serves the same."""

    name = "quantized"

    def __init__(self, settings: QuantizedSettings, backbone: Backbone) -> None:
        if settings.host == "maple" and not backbone.image.promptable:
            raise OptionError(f"no prompts can enter the image tower of {backbone.name}", field="options.host")
        self.settings = settings
        self._host = _host(settings, backbone, self._through)
        self.version = settings_version(self.name, settings, self._host.version)

    @property
    def steps(self) -> int:
        """Optimisation steps, the host's where none were asked for."""
        return self._host.settings.steps

    def prompts(self, labels: LabelSet) -> int | None:
        """Passes through the text tower, of a host that learns from the names alone."""
        return self._host.prompts(labels) if isinstance(self._host, SelfTPT) else None

    def needs(self, state: ClassState) -> ImageNeeds:
        return needs_of(state)

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        """Raises what the host raises for missing support images or an image tower that takes no prompts."""
        settings = self.settings
        state = self._host.adapt(labels, backbone, support, progress)
        packed = packed_extras(state, settings.chosen_bits)
        kept = {name: value for name, value in state.extras.items() if name != CONTEXT}
        info: dict[str, InfoValue] = {
            **state.info,
            "host": settings.host,
            "bits": settings.chosen_bits,
            "mode": settings.mode,
            "packed_bytes": packed_size(packed),
        }
        return replace(state, adapter=self.name, version=self.version, extras={**kept, **packed}, info=info)

    def rebuild(self, packed: Mapping[str, Tensor], labels: LabelSet, backbone: Backbone) -> Tensor:
        """The class weights [C, D] that the packed prompts among a state's extras give back. Raises `StateError` for
        damaged bytes."""
        return class_weights(self._host, unpacked(packed[PACKED]), labels, backbone)

    def extend(self, state: ClassState, labels: LabelSet, backbone: Backbone) -> ClassState:
        """Any classes served by the packed prompts of a state, without a fit."""
        backbone.text.check(labels)
        return replace(state, weights=self.rebuild(state.extras, labels, backbone))

    def _through(self) -> Through:
        settings = self.settings
        if settings.mode == "ptq":
            return AfterTraining(settings.chosen_bits)
        return StraightThrough(settings.chosen_bits, interval=settings.interval, threshold=settings.threshold)


def _host(settings: QuantizedSettings, backbone: Backbone, through: Callable[[], Through]) -> CoOp | MaPLe | SelfTPT:
    given: dict[str, Any] = {"seed": settings.seed}
    if settings.steps:
        given["steps"] = settings.steps
    if settings.learning_rate:
        given["learning_rate"] = settings.learning_rate
    if settings.host == "maple":
        return MaPLe(MaPLeSettings(**given), backbone, through)
    if settings.host == "self-tpt":
        return SelfTPT(SelfTPTSettings(**given), backbone, through)
    return CoOp(CoOpSettings(**{**SHARED_CONTEXT, **given}), backbone, through)
