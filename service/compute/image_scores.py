"""Images of one call to their scores: known features or decoded pixels, then the engine, then the features are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from adapters.base import PLAIN, ImageNeeds
from service.compute.engine import Engine, Scores
from service.compute.fair_gate import FairGate
from service.compute.scoring import ImageJob, ScoreKind
from service.compute.work_queue import ANYBODY, Asker
from service.errors import ServiceError
from service.images.decode import Decoder
from service.images.embeddings import Embeddings
from service.images.inputs import Upload
from service.labels.plans import Served
from service.security.callers import current_caller
from service.security.tenants import own_key
from service.telemetry.tracing import Tracing, Untraced

MANY_VIEWS_HELD = 4
"""Images of more than one view that are decoded ahead of the device: each is as large as a batch."""

Outcome = Scores | ServiceError


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What the images of one call are scored with. `decoding` is entered while they are looked up or decoded."""

    served: Served
    needs: ImageNeeds
    top_k: int = 1
    scores: ScoreKind = "softmax"
    asker: Asker = ANYBODY
    decoding: Callable[[], AbstractContextManager[None]] = nullcontext

    def job(self, pixels: Tensor, caller: object) -> ImageJob:
        served = self.served
        return ImageJob(
            pixels, served.state, self.needs, self.top_k, self.scores, served.adapter, caller=caller, asker=self.asker
        )


class ImageScores:
    def __init__(
        self,
        engine: Engine,
        decoder: Decoder,
        embeddings: Embeddings,
        *,
        decoding: FairGate,
        tracing: Tracing | None = None,
    ) -> None:
        """`decoding` is passed by each image that has to be decoded."""
        self._engine = engine
        self._decoder = decoder
        self._decoding = decoding
        self._embeddings = embeddings
        self._tracing = tracing or Untraced()
        self._many_views = asyncio.Semaphore(MANY_VIEWS_HELD)

    async def of(self, images: Sequence[Upload], question: Question) -> list[Outcome]:
        """One outcome per image, in order. Raises `ServiceError` for what concerns all of them."""
        if question.needs.views > 1:
            return await asyncio.gather(*(self._with_views(image, question) for image in images))
        if question.needs == PLAIN and len(images) == 1:
            return [await self._one(images[0], question)]
        with question.decoding():
            keys = [await self._key(image, question) for image in images]
            known = await asyncio.gather(*(self._embeddings.find(key) for key in keys if key is not None))
            rows = iter(known)
            found = [next(rows) if key is not None else None for key in keys]
            jobs = await asyncio.gather(
                *(self._job(image, row, question) for image, row in zip(images, found, strict=True))
            )
        outcomes = await self._scored(jobs)
        for key, job, outcome in zip(keys, jobs, outcomes, strict=True):
            if key is not None and isinstance(job, ImageJob) and not job.embedded:
                self._keep(key, outcome)
        return outcomes

    async def _one(self, image: Upload, question: Question) -> Outcome:
        """Waits for a tower pass of the same image that is under way for somebody else. Only images that come alone
        may: those of two calls with several could wait for each other."""
        led, row_D = None, None
        try:
            with question.decoding():
                key = await self._key(image, question)
                if key is not None:
                    row_D = await self._embeddings.find_or_lead(key)
                    led = key if row_D is None else None
                job = await self._job(image, row_D, question)
            outcome = (await self._engine.classify([job]))[0] if isinstance(job, ImageJob) else job
            if led is not None:
                row_D = self._keep(led, outcome)
            return outcome
        finally:
            if led is not None:
                self._embeddings.land(led, row_D)

    async def _with_views(self, image: Upload, question: Question) -> Outcome:
        """Holds few images at a time, since each is many."""
        async with self._many_views:
            job = await self._job(image, None, question)
            return (await self._engine.classify([job]))[0] if isinstance(job, ImageJob) else job

    async def _key(self, image: Upload, question: Question) -> str | None:
        if image.error is not None or question.needs != PLAIN:
            return None
        return own_key(await self._embeddings.key(image.data), current_caller.get().tenant)

    async def _job(self, image: Upload, row_D: Tensor | None, question: Question) -> ImageJob | ServiceError:
        if image.error is not None:
            return image.error
        if row_D is not None:
            return question.job(row_D, self._tracing.here())
        try:
            async with self._decoding.place(question.asker.client):
                pixels = await self._decoder.pixels(image.data, question.needs.views)
        except ServiceError as error:
            return error
        return question.job(pixels, self._tracing.here())

    async def _scored(self, jobs: Sequence[ImageJob | ServiceError]) -> list[Outcome]:
        """The engine takes jobs of one kind at a time."""
        outcomes: list[Outcome | None] = [job if isinstance(job, ServiceError) else None for job in jobs]
        kinds = {job.kind for job in jobs if isinstance(job, ImageJob)}
        for kind, scored in zip(
            kinds, await asyncio.gather(*(self._of_kind(jobs, kind) for kind in kinds)), strict=True
        ):
            results = iter(scored)
            for place, job in enumerate(jobs):
                if isinstance(job, ImageJob) and job.kind == kind:
                    outcomes[place] = next(results)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _of_kind(self, jobs: Sequence[ImageJob | ServiceError], kind: object) -> list[Outcome]:
        return await self._engine.classify([job for job in jobs if isinstance(job, ImageJob) and job.kind == kind])

    def _keep(self, key: str, outcome: Outcome) -> Tensor | None:
        row_D = outcome.features if isinstance(outcome, Scores) else None
        if row_D is not None:
            self._embeddings.keep(key, row_D)
        return row_D
