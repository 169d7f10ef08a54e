"""What every server serves: the same decoder, image tower, engine and head, or no model at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from adapters import create_adapter
from adapters.base import PLAIN, LabelSet
from adapters.clip import Backbone
from benchmarks.names import class_names
from service.compute.image_engine import settings_backbone, with_engine
from service.compute.scoring import ImageJob, score_batch
from service.core import build_decoder
from service.process.allocator import keep_large_blocks
from service.settings import Settings

CLASSES = 100
TOP = 5
LARGEST = 32
"""Images in a batch, at most."""

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a server is run, told to it by its environment. `workers` compute, with one thread each."""

    port: int
    workers: int = 1
    noop: bool = False

    @classmethod
    def from_environment(cls) -> Shape:
        return cls(int(os.environ["PEER_PORT"]), int(os.environ["PEER_WORKERS"]), noop=os.environ["PEER_NOOP"] == "1")

    @property
    def environment(self) -> dict[str, str]:
        return {"PEER_PORT": str(self.port), "PEER_WORKERS": str(self.workers), "PEER_NOOP": str(int(self.noop))}


class Model(Protocol):
    """The two halves of a request; servers that can, run them in different processes."""

    @property
    def decode(self) -> Callable[[bytes], Any]: ...
    def answers(self, images: Sequence[Any]) -> list[Answer]: ...


class Decoding:
    """JPEG bytes to uint8 [3, S, S], as a numpy array, which every server knows how to hand on."""

    def __init__(self, settings: Settings, backbone: Backbone) -> None:
        self._decoder = build_decoder(settings, backbone)

    def decode(self, data: bytes) -> Any:
        return self._decoder.decode(data).numpy()


class Tower:
    """The engine and decoder that SELFTPT_* ask for, on one compute thread, and 100 classes."""

    def __init__(self) -> None:
        settings = Settings(threads=1, decode_threads=1)
        keep_large_blocks()
        torch.set_num_threads(1)
        self._backbone, _ = with_engine(settings, settings_backbone(settings))
        self.decode = Decoding(settings, self._backbone).decode
        labels = LabelSet.of(*class_names(CLASSES))
        self._names = [one.name for one in labels.classes]
        self._state = create_adapter("zero-shot", self._backbone).adapt(labels, self._backbone)

    def answers(self, images: Sequence[Any]) -> list[Answer]:
        pixels = [torch.from_numpy(image) for image in images]
        jobs = [ImageJob(one, self._state, PLAIN, TOP) for one in pixels]
        ranked = score_batch(self._backbone.image.encode(torch.stack(pixels)), jobs)
        return [self._answer(*one) for one in ranked if one is not None]

    def _answer(self, rows: list[int], scores: list[float], cosines: list[float]) -> Answer:
        named = zip(rows, scores, cosines, strict=True)
        return {"predictions": [{"label": self._names[row], "score": s, "cosine": c} for row, s, c in named]}


class Constant:
    """No model: bytes in, the same answer out."""

    def decode(self, data: bytes) -> bytes:
        return data

    def answers(self, images: Sequence[Any]) -> list[Answer]:
        return [{"predictions": [{"label": "cat", "score": 0.75, "cosine": 0.25}] * TOP} for _ in images]


def decoding_of(shape: Shape) -> Callable[[bytes], Any]:
    """The first half alone."""
    settings = Settings(threads=1, decode_threads=1)
    return Constant().decode if shape.noop else Decoding(settings, settings_backbone(settings)).decode


def model_of(shape: Shape) -> Model:
    return Constant() if shape.noop else Tower()
