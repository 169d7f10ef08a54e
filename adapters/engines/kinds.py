"""The kinds of engines that there are, which of them this installation and processor can run, and how one is opened."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from torch import Tensor

from adapters.engines.artefacts import Artefacts
from adapters.engines.base import REFERENCE, ImageEngine, Kind, Tower
from adapters.engines.machine import Machine
from adapters.engines.torch_tower import TorchEngine

KINDS = (
    REFERENCE,
    Kind("torch", "bf16"),
    Kind("openvino", "fp32"),
    Kind("openvino", "bf16"),
    Kind("onnxruntime", "fp32"),
    Kind("onnxruntime", "int8"),
    Kind("openvino", "int8"),
)
"""In the order in which they are tried: what is exported once is used by those that follow."""

ONLY_ON_REQUEST = {Kind("openvino", "int8")}
"""Calibrated on images, which takes up to a minute."""

NEEDS = {
    "torch": (),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
}
EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}


@dataclass(frozen=True, slots=True, eq=False)
class Workshop:
    """What opening an engine takes."""

    tower: Tower
    threads: int
    artefacts: Artefacts


def obstacle(kind: Kind, machine: Machine, *, asked_for: bool) -> str:
    """Why a kind cannot be tried here, "" if it can."""
    missing = [name for name in NEEDS[kind.engine] if find_spec(name) is None]
    if missing:
        extra = EXTRAS[kind.engine]
        return f"{', '.join(missing)} not installed (pip install 'self-tpt-service[{extra}]')"
    if kind.precision == "bf16" and not machine.multiplies_bf16:
        return "this processor has no bf16 instructions"
    if kind in ONLY_ON_REQUEST and find_spec("nncf") is None:
        return "nncf not installed (pip install nncf)"
    if kind in ONLY_ON_REQUEST and not asked_for:
        return "tried only when it is asked for: calibration takes up to a minute"
    return ""


def open_engine(kind: Kind, workshop: Workshop, probes: Tensor | None = None) -> ImageEngine:
    """Raises whatever the engine's library raises. `probes` are images [P, 3, S, S] to calibrate with."""
    if kind.engine == "torch":
        return TorchEngine(workshop.tower, kind.precision)
    module = import_module(f"adapters.engines.{kind.engine}_tower")  # late: the library may not be there
    extra = {"probes": probes} if kind.engine == "openvino" else {}
    make = module.OpenVinoEngine if kind.engine == "openvino" else module.OnnxRuntimeEngine
    engine: ImageEngine = make(
        workshop.tower, kind.precision, threads=workshop.threads, artefacts=workshop.artefacts, **extra
    )
    return engine
