"""From cosine to logit: the one factor that decides how sure the answers are. The backbone's own, one that follows
from the label set's size and geometry by a law learnt on other label sets, or one fitted to support images.

Tensor suffixes: N images, C classes, D joint width.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.base import InfoValue, Support, content_hash
from adapters.errors import StateError
from adapters.text.chunked import Tick, nothing

if TYPE_CHECKING:
    from adapters.clip import Backbone

LAW_FILE = "calibration.json"
SHIPPED = Path(__file__).parent / "source_prompts"
USUAL_CLASSES, USUAL_NEAREST = math.log(10), 0.4
"""Where the law's features are zero, so that its offset is the scale of an ordinary small label set."""
SLICE_FLOPS = 1e9
"""Work between two ticks."""
IMAGES = 32

_FIT_SCALES = torch.logspace(0, math.log10(200), 240)
_PRIOR_SPREAD = 0.35
"""Standard deviation, in log scale, of what a fit expects before it sees an image."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the law sees of a label set: the logarithm of its size, and the mean cosine of a class with its nearest."""

    count: float
    nearest: float


@dataclass(frozen=True, slots=True)
class ScaleLaw:
    """log scale = offset + count * (log C - log 10) + nearest * (mean nearest cosine - 0.4), within bounds.

    fingerprint: of the backbone it was learnt on; it says nothing about another. error, constant_error: mean
    calibration error in percent over the label sets it was learnt on, and that of the best single scale.
    """

    fingerprint: str
    offset: float
    count: float
    nearest: float
    lowest: float
    highest: float
    label_sets: int = 0
    error: float = 0.0
    constant_error: float = 0.0

    def scale(self, seen: Geometry) -> float:
        line = self.count * (seen.count - USUAL_CLASSES) + self.nearest * (seen.nearest - USUAL_NEAREST)
        return math.exp(min(max(self.offset + line, math.log(self.lowest)), math.log(self.highest)))

    @property
    def version(self) -> str:
        return content_hash(asdict(self))[:16]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LAW_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def load_law(file: Path) -> ScaleLaw:
    """Raises `StateError` if the file holds no law."""
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        law = ScaleLaw(**{entry.name: plain[entry.name] for entry in fields(ScaleLaw)})
        numbers = [float(getattr(law, entry.name)) for entry in fields(ScaleLaw) if entry.name != "fingerprint"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{file} holds no law of calibration: {error}") from error
    if not all(map(math.isfinite, numbers)) or not 0 < law.lowest <= law.highest:
        raise StateError(f"{file} holds numbers that cannot be used")
    return law


def find_law(fingerprint: str, folder: Path | None = None) -> ScaleLaw | None:
    """The law learnt on this very backbone, from `folder` first, then from those shipped beside the source prompts."""
    for root in (folder, SHIPPED):
        if root is None or not root.is_dir():
            continue
        for file in sorted(root.glob(f"**/{LAW_FILE}")):
            law = load_law(file)
            if law.fingerprint == fingerprint:
                return law
    return None


def geometry(weights_CD: Tensor, *, tick: Tick = nothing) -> Geometry:
    """Of unit class rows [C, D], a block of rows at a time."""
    classes = len(weights_CD)
    rows = max(1, int(SLICE_FLOPS / (2 * weights_CD.numel())))
    if classes == 1:
        return Geometry(0.0, USUAL_NEAREST)
    total = 0.0
    for start in range(0, classes, rows):
        block_nC = weights_CD[start : start + rows] @ weights_CD.T
        own = torch.arange(len(block_nC), device=block_nC.device)
        block_nC[own, own + start] = -1.0
        total += float(block_nC.max(dim=1).values.sum())
        tick()
    return Geometry(math.log(classes), total / classes)


def label_free_scale(weights_CD: Tensor, backbone: Backbone, *, tick: Tick = nothing) -> float:
    """The scale that the backbone's law gives for these class rows; the backbone's own scale where it has no law.
    Raises `StateError` for a law that was learnt on another backbone."""
    law = backbone.law
    if law is None:
        return backbone.logit_scale
    if law.fingerprint != backbone.fingerprint:
        raise StateError(f"the law of calibration belongs to backbone {law.fingerprint[:12]}, not to {backbone.name}")
    return law.scale(geometry(weights_CD, tick=tick))


def calibration_version(backbone: Backbone) -> str:
    """Part of the version of every adapter that asks `served_scale`."""
    return "none" if backbone.law is None else backbone.law.version


def fitted_scale(cosines_NC: Tensor, labels_N: Tensor, *, expected: float | None = None) -> float:
    """The scale with the least negative log-likelihood of the labels (temperature scaling, arXiv 1706.04599).
    `expected` holds a small or perfectly separated sample back: without it the answer may be any large number."""
    losses = torch.stack([F.cross_entropy(s * cosines_NC, labels_N, reduction="sum") for s in _FIT_SCALES.tolist()])
    if expected is not None:
        losses = losses + 0.5 * ((_FIT_SCALES / expected).log() / _PRIOR_SPREAD).square()
    return float(_FIT_SCALES[int(losses.argmin())])


class ServedScale(NamedTuple):
    """A scale, and where it comes from: "backbone", "label-set geometry" or "support"."""

    scale: float
    source: str

    @property
    def info(self) -> dict[str, InfoValue]:
        return {"logit_scale_from": self.source}


def served_scale(
    weights_CD: Tensor,
    backbone: Backbone,
    support: Support | None = None,
    *,
    calibrated: bool = True,
    tick: Tick = nothing,
) -> ServedScale:
    """The one place where a method that did not learn from the support images gets its scale. Methods that did must fit
    it to images they held out (`fitted_scale`)."""
    if not calibrated:
        return ServedScale(backbone.logit_scale, "backbone")
    expected = label_free_scale(weights_CD, backbone, tick=tick)
    if support is not None and len(support) > 0 and len(weights_CD) > 1:
        parts = []
        for pixels in support.pixels.split(IMAGES):
            parts.append(backbone.image.encode(pixels) @ weights_CD.T.to(backbone.device))
            tick()
        return ServedScale(fitted_scale(torch.cat(parts).cpu(), support.labels.cpu(), expected=expected), "support")
    return ServedScale(expected, "backbone" if backbone.law is None else "label-set geometry")
