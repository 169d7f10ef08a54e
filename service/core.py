"""What exists once the backbone is loaded, connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import torch

from adapters import create_adapter
from adapters.base import Adapter, InfoValue
from adapters.clip import Backbone
from adapters.registry import METHODS, Method
from adapters.text.features import TextFeatures
from adapters.vision.pixels import FastResize
from service.class_states.hot_states import HotStates
from service.class_states.states import States
from service.classifier import Classifier, Facts
from service.compute.backlog import Backlog
from service.compute.batch_bounds import bounds_by
from service.compute.engine import LocalEngine
from service.compute.fair_gate import FairGate
from service.compute.image_scores import ImageScores
from service.compute.served_engine import OpenEngine, ServedEngine
from service.evaluation import Evaluator
from service.images.decode import Decoder, ImageLimits
from service.images.embeddings import Embeddings, embedding_space
from service.labels.fits import Fits, SupportReader
from service.labels.label_limits import LabelLimits
from service.labels.label_sets import LabelSets
from service.labels.plans import BuildAdapter, Planner
from service.labels.records import RecordBook
from service.labels.support import SupportLimits, SupportShelves
from service.labels.work_budget import WorkBudget
from service.security.fetch import Fetch, Fetcher, no_fetch
from service.security.keys import DEFAULT_TENANT
from service.security.tenants import tenant_store
from service.settings import Settings, listed
from service.stores import Stores
from service.telemetry.collectors import device_memory
from service.telemetry.device import DeviceWatch
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing, Untraced

DECODED_AHEAD = 2
"""Images given to each decoder's thread: with one it would wait for the event loop between two."""


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """What one tenant works with. Backbone, engine, decoder and the place of states are the same for all; label sets,
    their plans and their images are its own. `of` gives the core of another tenant, `cores` those made so far."""

    backbone: Backbone
    engine: ServedEngine
    label_sets: LabelSets
    classifier: Classifier
    decoder: Decoder
    fits: Fits
    evaluator: Evaluator
    of: Callable[[str], Core]
    cores: Mapping[str, Core]


def build_core(
    settings: Settings,
    backbone: Backbone,
    stores: Stores,
    metrics: Metrics,
    *,
    tracing: Tracing | None = None,
    build_adapter: BuildAdapter | None = None,
    methods: Mapping[str, Method] = METHODS,
    open_engine: OpenEngine | None = None,
    backlog: Backlog | None = None,
) -> Core:
    """Connects the parts for the default tenant; starts nothing. `methods` are the facts about what `build_adapter`
    makes; `open_engine` takes the place of an engine of this process."""
    tracing = tracing or Untraced()
    backlog = backlog or Backlog()
    engine = (open_engine or partial(build_engine, backlog=backlog))(settings, backbone, metrics, tracing)
    decoder, decoding = build_decoder(settings, backbone), FairGate(DECODED_AHEAD * settings.decoders)
    embeddings = build_embeddings(settings, backbone, decoder, stores, metrics)
    states = build_states(settings, engine, stores, metrics, tracing)
    classifiers = build_classifiers(settings, backbone, metrics, tracing, backlog)
    cores: dict[str, Core] = {}

    def of(tenant: str) -> Core:
        if tenant not in cores:
            cores[tenant] = tenant_core(tenant)
        return cores[tenant]

    def tenant_core(tenant: str) -> Core:
        records = tenant_store(stores.records, tenant)
        shelves = SupportShelves(records, support_limits(settings))
        image_scores = ImageScores(engine, decoder, embeddings, decoding=decoding, tracing=tracing)
        planner = Planner(
            backbone,
            build_adapter or builder(backbone),
            default_adapter=settings.adapter,
            load_support=SupportReader(shelves, decoder),
            methods=methods,
            tenant=tenant,
        )
        label_sets = LabelSets(
            RecordBook(records),
            states,
            backbone=backbone,
            planner=planner,
            shelves=shelves,
            limits=label_limits(settings),
        )
        classifier = classifiers(label_sets, engine, image_scores)
        fits = Fits(label_sets, max_seconds=settings.max_fit_seconds)
        evaluator = Evaluator(label_sets, image_scores, limits=settings)
        return Core(backbone, engine, label_sets, classifier, decoder, fits, evaluator, of, cores)

    return of(DEFAULT_TENANT)


def build_classifiers(
    settings: Settings, backbone: Backbone, metrics: Metrics, tracing: Tracing, backlog: Backlog
) -> Callable[[LabelSets, ServedEngine, ImageScores], Classifier]:
    return partial(
        Classifier,
        metrics=metrics,
        tracing=tracing,
        facts=Facts(backbone.name, backbone.source_prompts),
        backlog=backlog,
        max_top_k=settings.max_top_k,
        timeout=settings.request_timeout,
        fetch=build_fetch(settings),
    )


def build_fetch(settings: Settings) -> Fetch:
    if not settings.image_urls:
        return no_fetch
    return Fetcher(settings.max_image_bytes, settings.max_url_seconds, listed(settings.image_url_hosts))


def with_text_features(settings: Settings, backbone: Backbone, metrics: Metrics) -> Backbone:
    """The backbone, whose text tower remembers what label sets share."""
    if settings.text_bytes == 0:
        return backbone

    def looked_up(found: int, missed: int) -> None:
        metrics.cache_lookups.labels("class_features", "hit").inc(found)
        metrics.cache_lookups.labels("class_features", "miss").inc(missed)

    fingerprint = f"{backbone.fingerprint}:{backbone.precision}"
    features = TextFeatures(settings.text_bytes, fingerprint=fingerprint, looked_up=looked_up)
    metrics.watch_cache("class_features", lambda: features.nbytes)
    return replace(backbone, text=backbone.text.remembering(features))


def builder(backbone: Backbone) -> BuildAdapter:
    def build(name: str, options: Mapping[str, InfoValue]) -> Adapter:
        return create_adapter(name, backbone, options)

    return build


def label_limits(settings: Settings) -> LabelLimits:
    return LabelLimits(
        settings.max_classes, settings.max_name_characters, settings.max_templates, settings.max_descriptions
    )


def build_engine(
    settings: Settings, backbone: Backbone, metrics: Metrics, tracing: Tracing, *, backlog: Backlog | None = None
) -> LocalEngine:
    """`backlog` tells it whom batches should be short for."""
    engine = LocalEngine(
        backbone,
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
        threads=settings.compute_threads,
        watch=DeviceWatch(metrics, tracing),
        bounds=partial(bounds_by, backlog or Backlog()),
    )
    metrics.watch_queues(engine.batcher)
    metrics.watch_worker("local", engine.heartbeat_age)
    metrics.watch_memory(lambda: device_memory(backbone.device))
    metrics.watch_text_forwards(lambda: backbone.text.prompts_encoded)
    metrics.build.info(
        {
            "version": version("self-tpt-service"),
            "backbone": backbone.name,
            "device": str(backbone.device),
            "precision": backbone.precision,
            "torch": torch.__version__,
        }
    )
    return engine


def build_decoder(settings: Settings, backbone: Backbone) -> Decoder:
    return Decoder(
        backbone.preprocess,
        ImageLimits(settings.max_image_bytes, settings.max_pixels, settings.max_side_ratio, settings.max_frames),
        threads=settings.decoders,
        max_decoded_bytes=settings.max_decoded_bytes,
        apply_exif=settings.exif == "apply",
        fast=FastResize.like(backbone.preprocess) if settings.preprocess == "fast" else None,
    )


def build_embeddings(
    settings: Settings, backbone: Backbone, decoder: Decoder, stores: Stores, metrics: Metrics
) -> Embeddings:
    return Embeddings(
        embedding_space(backbone, decoder.version),
        backbone.embed_dim,
        max_bytes=settings.embedding_bytes,
        metrics=metrics,
        shared=stores.cache if settings.share_embeddings else None,
    )


def build_states(
    settings: Settings, engine: ServedEngine, stores: Stores, metrics: Metrics, tracing: Tracing
) -> States:
    return States(
        engine,
        stores.states,
        hot=HotStates(settings.hot_bytes),
        metrics=metrics,
        tracing=tracing,
        max_adaptations=settings.max_adaptations,
        place=engine.place,
        turns=stores.turns,
        budget=WorkBudget(settings.max_adapt_seconds),
    )


def support_limits(settings: Settings) -> SupportLimits:
    return SupportLimits(
        settings.max_support_images,
        settings.max_support_total,
        settings.max_support_bytes,
        settings.max_caption_characters,
    )
