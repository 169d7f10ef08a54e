"""What runs an image tower, what it is made from, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn

EngineName = Literal["torch", "openvino", "onnxruntime"]
Precision = Literal["fp32", "bf16", "int8"]


class ImageEngine(Protocol):
    """One compiled image tower on a fixed number of threads. Not to be called by two threads at once."""

    def features(self, pixels_B3SS: Tensor, /) -> Tensor:
        """uint8 [B, 3, S, S] on the CPU to float32 [B, D], not normalised; row b shows image b."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Tower:
    """An image tower in fp32 on the CPU, with the normalisation in front of it. `fingerprint` is its backbone's."""

    visual: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    fingerprint: str


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """A way to run a tower. `fp32` is the precision of the matrix products and of what lies between them."""

    engine: EngineName
    precision: Precision

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


REFERENCE = Kind("torch", "fp32")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was measured of one kind on this machine. Milliseconds are per image. `refused` is why it may not serve, ""
    if it may; what was not measured is None."""

    kind: Kind
    ms_single: float | None = None
    ms_batch: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    neighbours: float | None = None
    refused: str = ""

    @property
    def cost(self) -> float:
        """Geometric mean of one image alone and one in a batch: a quiet service and a busy one count alike."""
        if self.ms_single is None or self.ms_batch is None:
            return float("inf")
        return float((self.ms_single * self.ms_batch) ** 0.5)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which kind runs, on how many threads, and why. `source` says how that came about: `setting` (nothing to choose),
    `measured`, `remembered` from an earlier start, or `fallback` after a failure. `precision` may also be what the
    whole backbone was loaded in. `batch` is the size that `ms_batch` was taken with."""

    engine: EngineName
    precision: str
    threads: int
    source: Literal["setting", "measured", "remembered", "fallback"]
    reason: str
    batch: int = 0
    findings: tuple[Finding, ...] = field(default=())
