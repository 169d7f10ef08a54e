"""What an engine's speed and results depend on, beside the model: the processor and the libraries."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "openvino", "onnxruntime", "onnxscript", "nncf")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""As Linux names them on x86 and ARM."""


@dataclass(frozen=True, slots=True)
class Machine:
    processor: str
    flags: frozenset[str]
    libraries: tuple[tuple[str, str], ...]

    @property
    def multiplies_bf16(self) -> bool:
        return bool(self.flags & BF16_FLAGS)

    def key(self, **further: object) -> str:
        """Hash of the machine and of whatever else a choice depends on."""
        facts = {**asdict(self), "flags": sorted(self.flags), **further}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    facts = _facts(cpuinfo)
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = facts.get("flags") or facts.get("Features") or ""
    return Machine(name, frozenset(flags.split()), tuple((library, _version(library)) for library in LIBRARIES))


def _facts(cpuinfo: Path) -> dict[str, str]:
    """Of the first processor; empty elsewhere than on Linux."""
    try:
        first = cpuinfo.read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
