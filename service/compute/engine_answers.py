"""How `GET /v1/models` tells which engine runs the image tower, and why. Imports no torch: clients read this too."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class EngineCandidate(BaseModel):
    """Figures of this machine, compared with torch in fp32 on sample photos: milliseconds per image alone and in a
    batch, the least cosine, the part of best classes that agree, and the least cosine between an image alone and in a
    batch. `refused` is empty for what may serve."""

    engine: str
    precision: str
    ms_single: float | None
    ms_batch: float | None
    cosine: float | None
    agreement: float | None
    neighbours: float | None
    refused: str


class EngineAnswer(BaseModel):
    """`source` is `measured` at this start, `remembered` from an earlier one, `setting` where there was nothing to
    choose, or `fallback` after a failure."""

    name: str
    precision: str
    threads: int
    source: Literal["setting", "measured", "remembered", "fallback"]
    reason: str
    batch: int
    candidates: list[EngineCandidate]
