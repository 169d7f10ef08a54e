"""The image tower on CUDA as recorded graphs, one for each of a few batch sizes: one launch instead of hundreds, which
is most of the time of a small batch. Batches in between are padded. Tests run all of it but the recorder, which needs a
GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

WARM_UP = 3
"""Runs before a recording: libraries choose their kernels and get their memory in the first ones."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recording:
    """`replay` does the recorded work once more: from what lies in the input tensor into `output`."""

    replay: Callable[[], None]
    output: Tensor


class Recorder(Protocol):
    def __call__(self, work: Callable[[], Tensor]) -> Recording:
        """Raises `RuntimeError` for work that cannot be recorded."""
        ...


class CudaRecorder:
    """All recordings share one memory pool, so that they cost little more than the largest."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensor]) -> Recording:
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = work()
        return Recording(graph.replay, output)


@dataclass(frozen=True, slots=True, eq=False)
class _Bucket:
    pixels: Tensor
    recording: Recording


class GraphEngine:
    """`encode` takes uint8 [B, 3, S, S] on the device and must not look at single rows together."""

    def __init__(
        self, encode: Callable[[Tensor], Tensor], sizes: Sequence[int], *, side: int, device: torch.device,
        recorder: Recorder,
    ) -> None:  # fmt: skip
        """Records all sizes, the largest first, since the others then fit into its memory."""
        self._buckets: dict[int, _Bucket] = {}
        for size in sorted(set(sizes), reverse=True):
            pixels = torch.zeros(size, 3, side, side, dtype=torch.uint8, device=device)
            self._buckets[size] = _Bucket(pixels, recorder(partial(encode, pixels)))
        self._sizes = sorted(self._buckets)

    def features(self, pixels_B3SS: Tensor, /) -> Tensor:
        """float32 [B, D] on the device. Larger batches than the largest recorded one are cut."""
        most = self._sizes[-1]
        parts = [self._part(part) for part in pixels_B3SS.split(most)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _part(self, pixels_B3SS: Tensor) -> Tensor:
        """What an earlier batch left in the padding is computed again and thrown away."""
        count = len(pixels_B3SS)
        bucket = self._buckets[next(size for size in self._sizes if size >= count)]
        bucket.pixels[:count].copy_(pixels_B3SS)
        bucket.recording.replay()
        return bucket.recording.output[:count].clone()


def bucket_sizes(most: int) -> list[int]:
    """1, 2, 4 and so on, and `most`: no batch is padded to more than twice its size."""
    return sorted({min(1 << step, most) for step in range(most.bit_length() + 1)})


def graph_engine(
    encode: Callable[[Tensor], Tensor], *, most: int, side: int, device: torch.device, recorder: Recorder | None = None
) -> GraphEngine | None:
    """None, with a warning, where the tower cannot be recorded: it then runs as it is."""
    try:
        return GraphEngine(
            encode, bucket_sizes(most), side=side, device=device, recorder=recorder or CudaRecorder(device)
        )
    except RuntimeError as error:
        _log.warning("the image tower cannot be recorded", extra={"error": str(error).splitlines()[0]})
        return None
