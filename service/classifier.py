"""The image path from bytes to answer: label set, decode, engine, predictions. Its only HTTP: problem documents."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio

from service.compute.backlog import Backlog
from service.compute.engine import Engine, Scores
from service.compute.image_scores import ImageScores, Question
from service.compute.work_queue import Asker
from service.errors import DeadlineExceeded, LimitExceeded, ServiceError, Unprocessable
from service.http.problems import problem_document, refusal_reason
from service.images.inputs import Call, Upload
from service.labels.label_sets import LabelSets
from service.labels.plans import Plan, Served
from service.schemas import ClassifyOptions
from service.security.callers import current_caller, pay_images
from service.security.fetch import Fetch, fetched, no_fetch
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing, Untraced


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
        image_scores: ImageScores,
        *,
        metrics: Metrics,
        facts: Facts,
        backlog: Backlog,
        max_top_k: int,
        timeout: float,
        tracing: Tracing | None = None,
        fetch: Fetch = no_fetch,
    ) -> None:
        self._fetch = fetch
        self._label_sets = label_sets
        self._engine = engine
        self._image_scores = image_scores
        self._metrics = metrics
        self._tracing = tracing or Untraced()
        self._facts = facts
        self._backlog = backlog
        self._max_top_k = max_top_k
        self._timeout = timeout

    async def classify(
        self, call: Call, *, wait: float, stages: dict[str, float], patience: float | None = None
    ) -> Outcome:
        """`wait`: seconds to wait for the adapted state. `patience`: seconds after which the caller has no use for the
        answer. Raises `ServiceError` for what concerns the whole call."""
        allowed = self._timeout + wait if patience is None else min(patience, self._timeout + wait)
        asker = Asker(current_caller.get().id, time.perf_counter() + allowed)
        with anyio.move_on_after(allowed):
            return await self._classify(call, wait, stages, asker)
        raise DeadlineExceeded(f"not done within {allowed:g} s")

    async def _classify(self, call: Call, wait: float, stages: dict[str, float], asker: Asker) -> Outcome:
        options = call.options
        if options.top_k > self._max_top_k:
            raise LimitExceeded("max_top_k", self._max_top_k, actual=options.top_k, field="top_k")
        self._engine.admit(len(call.images), asker)
        self._backlog.check(len(call.images), asker)
        pay_images(len(call.images))
        with self._metrics.stage("resolve", stages):
            served = await self._label_sets.serve(await self._plan(options), wait=wait)
        self._tracing.served(served.key)
        if any(image.url for image in call.images):
            with self._metrics.stage("fetch", stages):
                call = replace(call, images=await fetched(call.images, self._fetch))
        with self._backlog.claim(len(call.images), asker.client):
            outcomes = await self._outcomes(call, served, stages, asker)
        self._record_device(outcomes, stages)
        began = time.perf_counter()
        results = [
            self._result(image, outcome, served, options) for image, outcome in zip(call.images, outcomes, strict=True)
        ]
        self._metrics.record_stage("answer", time.perf_counter() - began, stages)
        first = outcomes[0]
        failure = first if len(outcomes) == 1 and isinstance(first, ServiceError) else None
        return Outcome(self._answer(served, results), failure, stages)

    async def _outcomes(
        self, call: Call, served: Served, stages: dict[str, float], asker: Asker
    ) -> list[Scores | ServiceError]:
        needs = served.adapter.needs(served.state)
        options = call.options
        if needs.scored_by and options.scores == "independent":
            raise Unprocessable(f"adapter {served.adapter.name!r} has no independent scores", field="scores")
        several = needs.views > 1  # whose decoding and scoring take turns
        decoding = nullcontext if several else partial(self._metrics.stage, "decode", stages)
        question = Question(served, needs, options.top_k, options.scores, asker, decoding)
        return await self._image_scores.of(call.images, question)

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
