"""Checks of `selftpt doctor` on the model: device, backbone, source prompts, and the engine of the image tower."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from time import perf_counter

from service.commands.findings import Finding
from service.settings import Settings


def check_device(settings: Settings) -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
        clip = importlib.import_module("adapters.clip")
        errors = importlib.import_module("adapters.errors")
    except (ImportError, OSError, RuntimeError) as failure:
        yield Finding("fail", "device", str(failure).splitlines()[0], "see the line about torch")
        return
    try:
        device = clip.choose_device(settings.device)
    except errors.BackboneError as failure:
        yield Finding("fail", "device", str(failure), "set SELFTPT_DEVICE=auto")
        return
    threads = settings.compute_threads
    fact = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} compute threads"
    yield Finding("ok", "device", f"{device} ({fact})")
    if device.type == "cpu" and threads > (os.cpu_count() or 1):
        yield Finding("warn", "threads", f"{threads} on {os.cpu_count()} cores", "set SELFTPT_THREADS lower")


def check_backbone(settings: Settings) -> Iterator[Finding]:
    """Loads it for good: a file that is there may still not load."""
    try:
        engine = importlib.import_module("service.compute.image_engine")
        errors = importlib.import_module("adapters.errors")
    except (ImportError, OSError, RuntimeError):
        return
    start = perf_counter()
    try:
        backbone = engine.settings_backbone(settings)
    except errors.BackboneError as failure:
        advice = "set SELFTPT_BACKBONE=bundled, or name a local checkpoint as architecture:file"
        yield Finding("fail", "backbone", str(failure), advice)
        return
    seconds = perf_counter() - start
    fact = f"{backbone.name}: {backbone.embed_dim} dimensions, {backbone.precision}, loaded in {seconds:.1f} s"
    yield Finding("ok", "backbone", fact)
    if backbone.source_prompts == "none":
        advice = "self-tpt then starts from the template's words; learn source prompts with: selftpt train"
        yield Finding("warn", "source prompts", "none for this backbone", advice)
    else:
        yield Finding("ok", "source prompts", backbone.source_prompts)


def check_engine(settings: Settings) -> Iterator[Finding]:
    """Which engines could run here; which is fastest is measured by the service when it starts."""
    try:
        kinds = importlib.import_module("adapters.engines.kinds")
        machine = importlib.import_module("adapters.engines.machine").this_machine()
    except (ImportError, OSError, RuntimeError):
        return
    asked = settings.engine
    told = {kind: kinds.obstacle(kind, machine, asked_for=kind.engine == asked) for kind in kinds.KINDS}
    able = [f"{kind.engine} {kind.precision}" for kind, why in told.items() if not why]
    if asked != "auto" and not any(kind.engine == asked and not why for kind, why in told.items()):
        why = next(why for kind, why in told.items() if kind.engine == asked)
        advice = "torch serves instead; set SELFTPT_ENGINE=auto to choose among those that can run"
        yield Finding("warn", "engine", f"{asked} was asked for: {why}", advice)
        return
    missing = sorted({why for why in told.values() if "not installed" in why and "nncf" not in why})
    advice = f"others might be faster: {'; '.join(missing)}" if missing and asked == "auto" else ""
    yield Finding("ok", "engine", f"{asked}; can run: {', '.join(able)}", advice)
