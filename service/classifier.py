"""The image path from bytes to answer: label set, decode, engine, predictions. Its only HTTP: problem documents."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import anyio

from adapters.base import ImageNeeds
from service.decode import Decoder
from service.engine import Engine, Scores
from service.errors import DeadlineExceeded, LimitExceeded, Overloaded, ServiceError, Unprocessable
from service.http.problems import problem_document, refusal_reason
from service.images import Call, Upload
from service.label_sets import LabelSets
from service.plans import Plan, Served
from service.schemas import ClassifyOptions
from service.scoring import ImageJob
from service.security.callers import pay_images
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing, Untraced

MANY_VIEWS_HELD = 4
"""Images of more than one view that are decoded ahead of the device: each is as large as a batch."""


@dataclass(slots=True)
class Admission:
    """Counts the requests being worked on; one too many is refused before its body is read."""

    max_in_flight: int
    metrics: Metrics
    running: int = 0

    def __enter__(self) -> None:
        if self.running >= self.max_in_flight:
            raise Overloaded(f"{self.running} requests are being worked on", reason="in_flight")
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What every answer says of the model."""

    backbone: str
    source_prompts: str


@dataclass(slots=True, eq=False)
class Outcome:
    """`answer` is the JSON body. `failure` is the error of the only image, if there was one image and it failed."""

    answer: dict[str, Any]
    failure: ServiceError | None = None
    stages: dict[str, float] = field(default_factory=dict)


class Classifier:
    def __init__(
        self,
        label_sets: LabelSets,
        engine: Engine,
        decoder: Decoder,
        *,
        metrics: Metrics,
        facts: Facts,
        max_top_k: int,
        timeout: float,
        tracing: Tracing | None = None,
    ) -> None:
        self._label_sets = label_sets
        self._engine = engine
        self._decoder = decoder
        self._metrics = metrics
        self._tracing = tracing or Untraced()
        self._facts = facts
        self._max_top_k = max_top_k
        self._timeout = timeout
        self._many_views = asyncio.Semaphore(MANY_VIEWS_HELD)

    async def classify(self, call: Call, *, wait: float, stages: dict[str, float]) -> Outcome:
        """`wait`: seconds to wait for the adapted state. Raises `ServiceError` for what concerns the whole call."""
        with anyio.move_on_after(self._timeout + wait):
            return await self._classify(call, wait, stages)
        raise DeadlineExceeded(f"not done within {self._timeout + wait:g} s")

    async def _classify(self, call: Call, wait: float, stages: dict[str, float]) -> Outcome:
        options = call.options
        if options.top_k > self._max_top_k:
            raise LimitExceeded("max_top_k", self._max_top_k, actual=options.top_k, field="top_k")
        self._engine.admit(len(call.images))
        pay_images(len(call.images))
        with self._metrics.stage("resolve", stages):
            served = await self._label_sets.serve(await self._plan(options), wait=wait)
        self._tracing.served(served.key)
        outcomes = await self._outcomes(call, served, stages)
        self._record_device(outcomes, stages)
        began = time.perf_counter()
        results = [
            self._result(image, outcome, served, options) for image, outcome in zip(call.images, outcomes, strict=True)
        ]
        self._metrics.record_stage("answer", time.perf_counter() - began, stages)
        first = outcomes[0]
        failure = first if len(outcomes) == 1 and isinstance(first, ServiceError) else None
        return Outcome(self._answer(served, results), failure, stages)

    async def _outcomes(self, call: Call, served: Served, stages: dict[str, float]) -> list[Scores | ServiceError]:
        needs = served.adapter.needs(served.state)
        if needs.scored_by and call.options.scores == "independent":
            raise Unprocessable(f"adapter {served.adapter.name!r} has no independent scores", field="scores")
        if needs.views > 1:
            return await asyncio.gather(
                *(self._with_views(image, served, needs, call.options) for image in call.images)
            )
        with self._metrics.stage("decode", stages):
            decoded = await asyncio.gather(*(self._job(image, served, needs, call.options) for image in call.images))
        scored = iter(await self._engine.classify([job for job in decoded if isinstance(job, ImageJob)]))
        return [next(scored) if isinstance(job, ImageJob) else job for job in decoded]

    async def _with_views(
        self, image: Upload, served: Served, needs: ImageNeeds, options: ClassifyOptions
    ) -> Scores | ServiceError:
        """Holds few images at a time, since each is many."""
        async with self._many_views:
            job = await self._job(image, served, needs, options)
            return (await self._engine.classify([job]))[0] if isinstance(job, ImageJob) else job

    async def _plan(self, options: ClassifyOptions) -> Plan:
        if (options.labels is None) == (options.label_set is None):
            raise Unprocessable("give exactly one of `label_set` and `labels`", field="labels")
        if options.labels is not None:
            return await self._label_sets.inline(options.labels, options.adapter, options.templates)
        if options.templates:
            raise Unprocessable("templates go with `labels`; a label set has its own", field="templates")
        assert options.label_set is not None
        record = await self._label_sets.find(options.label_set)
        return self._label_sets.plan(record, options.adapter)

    async def _job(
        self, image: Upload, served: Served, needs: ImageNeeds, options: ClassifyOptions
    ) -> ImageJob | ServiceError:
        if image.error is not None:
            return image.error
        try:
            pixels = await self._decoder.pixels(image.data, needs.views)
        except ServiceError as error:
            return error
        caller = self._tracing.here()
        return ImageJob(pixels, served.state, needs, options.top_k, options.scores, served.adapter, caller=caller)

    def _record_device(self, outcomes: list[Scores | ServiceError], stages: dict[str, float]) -> None:
        """The images of one request go together, so the longest of each stage is the request's."""
        timings = [outcome.timing for outcome in outcomes if isinstance(outcome, Scores)]
        if not timings:
            return
        ended = min(timing.began for timing in timings)
        for stage in ("queue", "batch", "forward", "head"):
            seconds = max(getattr(timing, stage) for timing in timings)
            ended += 0.0 if stage == "queue" else seconds
            self._metrics.record_stage(stage, seconds, stages, ended=ended)
        for batch in {id(timing.trace): timing.trace for timing in timings}.values():
            self._tracing.joined(batch)

    def _result(
        self, image: Upload, outcome: Scores | ServiceError, served: Served, options: ClassifyOptions
    ) -> dict[str, Any]:
        named: dict[str, Any] = {} if image.filename is None else {"filename": image.filename}
        if isinstance(outcome, ServiceError):
            reason = refusal_reason(outcome)
            if reason is not None:
                self._metrics.refused.labels(reason).inc()
            self._metrics.images.labels("failed" if outcome.status >= 500 else "undecodable").inc()
            return named | {"error": problem_document(outcome)}
        self._metrics.images.labels("ok").inc()
        classes = served.plan.labels.classes
        named["predictions"] = [
            {"label": classes[row].name, "score": score, "cosine": cosine}
            for row, score, cosine in zip(outcome.rows, outcome.scores, outcome.cosines, strict=True)
        ]
        if options.scores == "softmax":
            self._metrics.top1_score.labels(served.by).observe(outcome.scores[0])
        if options.reject_below is not None:
            named["rejected"] = outcome.scores[0] < options.reject_below
            self._metrics.predictions.labels("rejected" if named["rejected"] else "accepted").inc()
        return named

    def _answer(self, served: Served, results: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "results": results,
            "adapted": served.adapted,
            "adapter": served.plan.name,
            "served_by": served.by,
            "label_set": served.plan.id,
            "status": served.status,
            "source_prompts": self._facts.source_prompts,
            "backbone": self._facts.backbone,
        }
