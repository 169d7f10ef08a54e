"""The image tower in OpenVINO. Imported only where that is installed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor

from adapters.engines.artefacts import Artefacts
from adapters.engines.base import Precision, Tower
from adapters.engines.onnx_export import exported, quiet, stem_of

SIZES = (16, 8, 4, 2, 1)
"""Batches are run in pieces of these sizes: OpenVINO prepares code for every new size, which takes several times as
long as running it, and larger pieces are not faster per image."""

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
CALIBRATION_IMAGES = 16


class OpenVinoEngine:
    """Its rows do not depend on the batch that an image is in, bit for bit."""

    def __init__(self, tower: Tower, precision: Precision, *, threads: int, artefacts: Artefacts,
                 probes: Tensor | None = None) -> None:  # fmt: skip
        """Raises what OpenVINO and the exporter raise. `probes` are real images, for int8."""
        core = openvino.Core()
        config = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # other processes may want this very core
        }
        stem = f"{stem_of(tower, 'openvino')}-{precision}-{threads}-{openvino.__version__.split('-')[0]}"
        device = core.get_property("CPU", "FULL_DEVICE_NAME")

        def make(path: Path) -> None:
            model = core.read_model(exported(tower, artefacts))
            if precision == "int8":
                assert probes is not None, "int8 is calibrated on images"
                model = quantised(model, probes)
            path.write_bytes(core.compile_model(model, "CPU", config).export_model().getvalue())

        blob = artefacts.get(f"{stem}-{slug(device)}", ".blob", make)
        self._request: Any = core.import_model(io.BytesIO(blob.read_bytes()), "CPU", config).create_infer_request()
        for size in SIZES:
            self._run(torch.zeros(size, 3, tower.size, tower.size, dtype=torch.uint8))

    def features(self, pixels_B3SS: Tensor) -> Tensor:
        return torch.cat([self._run(piece) for piece in pieces(pixels_B3SS)])

    def _run(self, pixels_B3SS: Tensor) -> Tensor:
        answer = self._request.infer({0: pixels_B3SS.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(answer[0].copy())  # the request's own buffer is written again by the next piece


def pieces(pixels_B3SS: Tensor) -> Iterator[Tensor]:
    start = 0
    while start < len(pixels_B3SS):
        size = next(size for size in SIZES if size <= len(pixels_B3SS) - start)
        yield pixels_B3SS[start : start + size]
        start += size


def quantised(model: Any, probes: Tensor) -> Any:
    """8-bit weights and activations, with ranges from some images (post-training quantisation of nncf)."""
    with quiet():
        nncf = import_module("nncf")
        images = nncf.Dataset([image.unsqueeze(0).numpy() for image in probes[:CALIBRATION_IMAGES]])
        return nncf.quantize(model, images, subset_size=CALIBRATION_IMAGES)


def slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text)[:48]
