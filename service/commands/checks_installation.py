"""Checks of `selftpt doctor` on what is installed: Python, packages, extras, and torch's two halves."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from service.commands.findings import Finding
from service.settings import Settings

OLDEST_PYTHON = (3, 10)
PACKAGES = ("torch", "torchvision", "open_clip_torch", "fastapi", "uvicorn", "redis", "pillow", "safetensors")
EXTRAS = {
    "parquet": "pyarrow",
    "eval": "matplotlib",
    "otel": "opentelemetry.sdk",
    "openvino": "openvino",
    "onnx": "onnxruntime",
}
"""Optional parts of the installation, and the module that shows each."""


def check_python(settings: Settings) -> Iterator[Finding]:
    fact = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("fail", "python", fact, "Python 3.10 or newer is needed")
    else:
        yield Finding("ok", "python", fact)


def check_packages(settings: Settings) -> Iterator[Finding]:
    versions: list[str] = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding("fail", "packages", f"{name} is missing", "pip install self-tpt-service")
    yield Finding("ok", "packages", ", ".join(versions))


def check_torch(settings: Settings) -> Iterator[Finding]:
    """The most common broken installation: two builds of torch and torchvision that do not fit."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as failure:
        reason = str(failure).splitlines()[0]
        advice = "install both in one command: pip install --force-reinstall torch torchvision"
        yield Finding("fail", "torch", f"torchvision does not fit torch: {reason}", advice)
    else:
        yield Finding("ok", "torch", "torch and torchvision fit each other")


def check_extras(settings: Settings) -> Iterator[Finding]:
    """Nothing is wrong without them; a user may look for what they offer."""
    there = {name: installed(module) for name, module in EXTRAS.items()}
    have = ", ".join(name for name, found in there.items() if found) or "none"
    lacking = ", ".join(name for name, found in there.items() if not found)
    advice = f"not installed: {lacking} (pip install 'self-tpt-service[NAME]')" if lacking else ""
    yield Finding("ok", "extras", have, advice)


def installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is not there
        return False
