"""The image tower in ONNX Runtime. Imported only where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from adapters.engines.artefacts import Artefacts
from adapters.engines.base import Precision, Tower
from adapters.engines.onnx_export import INPUT, exported, quiet, stem_of

_WARNING_AND_UP = 3


class OnnxRuntimeEngine:
    """In fp32 a row does not depend on the batch that an image is in. In int8 the ranges of activations are taken from
    whatever runs together, so there images run one by one: nobody's scores depend on a stranger's image."""

    def __init__(self, tower: Tower, precision: Precision, *, threads: int, artefacts: Artefacts) -> None:
        """Raises what ONNX Runtime and the exporter raise."""
        path = exported(tower, artefacts) if precision == "fp32" else quantised(tower, artefacts)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _WARNING_AND_UP
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._singly = precision == "int8"

    def features(self, pixels_B3SS: Tensor) -> Tensor:
        parts = pixels_B3SS.split(1) if self._singly else [pixels_B3SS]
        return torch.cat([self._run(part) for part in parts])

    def _run(self, pixels_B3SS: Tensor) -> Tensor:
        (features,) = self._session.run(None, {INPUT: pixels_B3SS.contiguous().numpy()})
        return torch.from_numpy(features)


def quantised(tower: Tower, artefacts: Artefacts) -> Path:
    """Matrix products with 8-bit weights, per output channel, and activations quantised as they come."""

    def make(path: Path) -> None:
        import onnx  # noqa: PLC0415  # seconds, and needed for the making only
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

        with quiet():
            model = onnx.load(str(exported(tower, artefacts)))
            del model.graph.value_info[:]  # shapes that the transposed weights would contradict
            quantize_dynamic(model, str(path), op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
                             weight_type=QuantType.QInt8)  # fmt: skip

    return artefacts.get(f"{stem_of(tower, 'int8')}-ort{onnxruntime.__version__}", ".onnx", make)
