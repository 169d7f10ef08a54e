"""Puts the engine that the settings ask for, or that is fastest here, behind the image tower."""

from __future__ import annotations

import logging
from dataclasses import replace

from adapters.clip import Backbone, load_backbone
from adapters.engines.base import Decision
from adapters.engines.choice import Wanted, choose_engine
from adapters.engines.cuda_graphs import graph_engine
from service.compute.engine_answers import EngineAnswer, EngineCandidate
from service.settings import Settings

FOLDER = "engines"

_log = logging.getLogger(__name__)


def settings_backbone(settings: Settings) -> Backbone:
    """The backbone that the settings name, run by torch. Blocks for seconds; raises `BackboneError`."""
    return load_backbone(
        settings.backbone, device=settings.device, precision=settings.precision, source_dir=settings.source_prompts
    )


def with_engine(settings: Settings, backbone: Backbone) -> tuple[Backbone, Decision]:
    """Blocks: seconds when engines are measured for the first time. Never fails for an engine's sake."""
    chosen = choose_engine(backbone, wanted_engine(settings))
    decision = chosen.decision
    missed = settings.engine not in ("auto", decision.engine) or decision.source == "fallback"
    _log.log(
        logging.WARNING if missed else logging.INFO,
        "image engine",
        extra={"engine": decision.engine, "precision": decision.precision, "threads": decision.threads,
               "source": decision.source, "reason": decision.reason},
    )  # fmt: skip
    if chosen.engine is None:
        return (_recorded(settings, backbone) if settings.engine == "auto" else backbone), decision
    kind = f"{decision.engine} {decision.precision}"
    return replace(backbone, image=backbone.image.run_by(chosen.engine, kind)), decision


def _recorded(settings: Settings, backbone: Backbone) -> Backbone:
    """On CUDA, batches of a few sizes are recorded once and replayed."""
    if backbone.device.type != "cuda":
        return backbone
    image, side = backbone.image, backbone.preprocess.size
    graphs = graph_engine(image.encode_reference, most=settings.max_batch, side=side, device=backbone.device)
    return backbone if graphs is None else replace(backbone, image=image.run_by(graphs, image.kind))


def wanted_engine(settings: Settings) -> Wanted:
    """Who asks for a backbone in fp32 gets no other precision, unless asked for beside it."""
    plain = settings.precision == "fp32" and settings.engine_precision == "auto"
    return Wanted(
        engine=settings.engine,
        precision="fp32" if plain else settings.engine_precision,
        threads=settings.compute_threads,
        max_batch=settings.max_batch,
        seconds=settings.engine_seconds,
        folder=settings.data_dir / FOLDER,
    )


def engine_answer(decision: Decision) -> EngineAnswer:
    candidates = [
        EngineCandidate(
            engine=found.kind.engine,
            precision=found.kind.precision,
            ms_single=found.ms_single,
            ms_batch=found.ms_batch,
            cosine=found.cosine,
            agreement=found.agreement,
            neighbours=found.neighbours,
            refused=found.refused,
        )
        for found in decision.findings
    ]
    return EngineAnswer(
        name=decision.engine,
        precision=decision.precision,
        threads=decision.threads,
        source=decision.source,
        reason=decision.reason,
        batch=decision.batch,
        candidates=candidates,
    )
