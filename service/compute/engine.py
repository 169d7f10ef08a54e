"""The one owner of the device: image-tower passes, scoring, adaptation. Knows no HTTP and no stores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from adapters.base import PLAIN, Adapter, ClassState, LabelSet, Progress, Support
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged
from adapters.scoring import image_features
from service.compute.batch_bounds import ALIKE
from service.compute.batch_costs import Bounds
from service.compute.batcher import Batcher
from service.compute.levels import FALLBACK_LEVEL, level_of
from service.compute.out_of_memory import is_out_of_memory
from service.compute.scoring import ImageJob, Kind, own_scores, score_batch
from service.compute.work_queue import ANYBODY, Asker, Checkpoint
from service.errors import ComputeError, ServiceError

EMBEDDED_FACTOR = 16
"""Images that come as features need no tower pass: so many of them count as one."""

SEVERAL = 8
"""Images of the batch that is measured beside a single one; not for towers that take longer for one than this, in s:"""

SLOW = 0.2

PASSES = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that one image spent: waiting, and in the making, tower pass and scoring of its batch of `size`, which
    began at `began` (`time.perf_counter()`). `trace` is what tracing knows that batch by."""

    queue: float
    forward: float
    head: float
    size: int
    batch: float = 0.0
    began: float = 0.0
    trace: object = None


@dataclass(frozen=True, slots=True)
class Scores:
    """The best classes of one image, best first, as rows of the class state."""

    rows: list[int]
    scores: list[float]
    cosines: list[float]
    timing: Timing
    features: Tensor | None = field(default=None, repr=False, compare=False)
    """The image's own, float32 [D] on the CPU: those of an image without views and prompts."""


class Watch(Protocol):
    """Told on the device thread of what it did."""

    def batch(self, timing: Timing, jobs: Sequence[ImageJob]) -> object:
        """After each batch, with its first image's timing. What it returns becomes `Timing.trace`."""
        ...

    def restarted(self) -> None:
        """After the device thread died and was started again; not on that thread."""
        ...

    def class_state(self, seconds: float) -> None:
        """After each slice of the making of a class state: the time it took, without that of work let through."""
        ...


class Engine(Protocol):
    """The seam between the front end and whatever owns a device."""

    def admit(self, count: int, asker: Asker = ANYBODY) -> None:
        """Raises `Overloaded` when `count` more images would be too many."""
        ...

    async def classify(self, jobs: Sequence[ImageJob]) -> list[Scores | ServiceError]:
        """One outcome per job, in order; one image's failure is its own. The jobs of one call are of one kind and have
        one asker."""
        ...

    async def adapt(
        self, labels: LabelSet, adapter: Adapter, progress: Progress | None = None, support: Support | None = None
    ) -> ClassState:
        """`progress` is called on another thread. Cancelling the caller abandons the adaptation. Raises what the
        adapter raises, and `ServiceError` when the device is gone."""
        ...


class LocalEngine:
    """An engine of this process: one backbone, one device thread."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_batch: int,
        max_waiting: int,
        threads: int,
        watch: Watch | None = None,
        bounds: Callable[[], Bounds] = lambda: ALIKE,
    ) -> None:
        """`bounds` of the next batch of images."""
        self._backbone = backbone
        self._threads = threads
        self._watch = watch
        self._progressed = time.perf_counter()
        self.batcher: Batcher[Kind, ImageJob, Scores] = Batcher(
            self._run_batch,
            max_batch=lambda kind: max(1, (EMBEDDED_FACTOR if kind[1] else 1) * max_batch // kind[0].views),
            max_waiting=max_waiting,
            cost=lambda kind: 1 / EMBEDDED_FACTOR if kind[1] else float(kind[0].views),
            bounds=bounds,
            prepare=self._prepare_thread,
            restarted=self._restarted,
        )

    def start(self) -> None:
        self.batcher.start()

    async def stop(self, *, timeout: float = 10.0) -> None:
        await self.batcher.stop(timeout=timeout)

    def admit(self, count: int, asker: Asker = ANYBODY) -> None:
        self.batcher.admit(count, asker)

    async def classify(self, jobs: Sequence[ImageJob]) -> list[Scores | ServiceError]:
        return await self._submit(jobs, urgent=False)

    async def probe(self) -> Timing:
        """Sends one blank image through the device thread. Raises `ServiceError` when that cannot be done."""
        (outcome,) = await self._submit([self._blank()], urgent=True)
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome.timing

    async def adapt(
        self, labels: LabelSet, adapter: Adapter, progress: Progress | None = None, support: Support | None = None
    ) -> ClassState:
        def work(checkpoint: Checkpoint) -> ClassState:
            busy = _Laps()

            def tell(fraction: float) -> None:
                self._progressed = time.perf_counter()
                if progress is not None:
                    progress(fraction)
                self._worked(busy.lap())
                checkpoint()
                busy.lap()

            try:
                tell(0.0)
                return finite(adapter.adapt(labels, self._backbone, support, tell))
            finally:
                self._worked(busy.lap())

        state = await self.batcher.run(level_of(labels, adapter, support), work)
        assert isinstance(state, ClassState)
        return state

    async def text_speed(self) -> float:
        """Seconds that a prompt takes in the text tower, measured now."""
        seconds = await self.batcher.run(FALLBACK_LEVEL, lambda checkpoint: self._backbone.text.seconds_per_prompt())
        return float(seconds)

    async def measure_batches(self) -> None:
        """Learns on blank images how much of a batch's time does not depend on its size."""
        await self.batcher.run(FALLBACK_LEVEL, lambda checkpoint: self._measure_batches())

    def place(self, state: ClassState) -> ClassState:
        """The state with what scoring needs on the device, so that no batch has to carry it there."""
        device = self._backbone.device
        extras = {name: tensor.to(device) for name, tensor in state.extras.items()}
        return replace(state, weights=state.weights.to(device), background=state.background.to(device), extras=extras)

    def heartbeat_age(self) -> float:
        """Seconds since the device thread last got on with its work; 0 while it has none."""
        since = self.batcher.busy_since
        return 0.0 if since is None else max(0.0, time.perf_counter() - max(since, self._progressed))

    async def _submit(self, jobs: Sequence[ImageJob], *, urgent: bool) -> list[Scores | ServiceError]:
        if not jobs:
            return []
        outcomes = await self.batcher.submit(jobs[0].kind, jobs, jobs[0].asker, urgent=urgent)
        assert all(isinstance(outcome, (Scores, ServiceError)) for outcome in outcomes)
        return outcomes  # type: ignore[return-value]  # asserted above; the batcher only makes ServiceErrors

    def _blank(self) -> ImageJob:
        size, width = self._backbone.preprocess.size, self._backbone.embed_dim
        row_1D = torch.nn.functional.normalize(torch.ones(1, width), dim=1)
        state = ClassState("probe", "probe", row_1D, row_1D[0], logit_scale=1.0)
        return ImageJob(torch.zeros(3, size, size, dtype=torch.uint8), state, PLAIN, top_k=1)

    # -- on the device thread ---------------------------------------------------------------------------------------

    def _measure_batches(self) -> None:
        """A device too small for several is left to what its batches will show."""
        try:
            if (alone := self._blank_seconds(1)) < SLOW:
                self.batcher.measured((PLAIN, False), alone, self._blank_seconds(SEVERAL), SEVERAL)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise

    def _blank_seconds(self, count: int) -> float:
        """The best of some batches, from pixels to scores."""
        jobs, laps = [self._blank()] * count, _Laps()
        found = []
        for _ in range(PASSES):
            stacked = torch.stack([job.pixels for job in jobs])
            score_batch(self._features(stacked, jobs, embedded=False), jobs)
            found.append(laps.lap())
        return min(found)

    def _worked(self, seconds: float) -> None:
        if self._watch is not None:
            self._watch.class_state(seconds)

    def _restarted(self) -> None:
        if self._watch is not None:
            self._watch.restarted()

    def _prepare_thread(self) -> None:
        torch.get_num_threads()  # torch's own first-use initialisation must not come later and undo the next line
        torch.set_num_threads(self._threads)

    def _run_batch(self, kind: Kind, jobs: Sequence[ImageJob]) -> list[Scores | Exception]:
        needs, embedded = kind
        began = time.perf_counter()
        collate = forward = 0.0
        features_BD: Tensor | None = None
        if needs.scored_by:
            outcomes, forward = own_scores(jobs, self._backbone), time.perf_counter() - began
        else:
            assert needs.views == 1, "views are for methods that score images themselves"
            pixels = torch.stack([job.pixels for job in jobs])
            collate = time.perf_counter() - began
            features_BD = self._features(pixels, jobs, embedded=embedded)
            forward = time.perf_counter() - began - collate
            outcomes = score_batch(features_BD, jobs)
        self._progressed = time.perf_counter()
        head = self._progressed - began - collate - forward
        shared = Timing(began - jobs[0].since, forward, head, len(jobs), collate, began)
        if self._watch is not None:
            shared = replace(shared, trace=self._watch.batch(shared, jobs))
        own = features_BD.cpu() if features_BD is not None and needs == PLAIN else None
        return [
            ComputeError("the image's features are not finite numbers")
            if outcome is None
            else Scores(*outcome, replace(shared, queue=began - job.since), None if own is None else own[row].clone())
            for row, (job, outcome) in enumerate(zip(jobs, outcomes, strict=True))
        ]

    def _features(self, stacked: Tensor, jobs: Sequence[ImageJob], *, embedded: bool) -> Tensor:
        """Unit features [B, D] of pixels, or of what are features already."""
        if embedded:
            return stacked.to(self._backbone.device)
        features_BD = image_features(stacked, [job.state for job in jobs], self._backbone)
        if features_BD.is_cuda:
            torch.cuda.synchronize(features_BD.device)
        return features_BD


class _Laps:
    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since it was made, or since the last lap."""
        now = time.perf_counter()
        since, self._since = self._since, now
        return now - since


def finite(state: ClassState) -> ClassState:
    """The state itself. Raises `AdaptationDiverged` for one that cannot give usable scores."""
    tensors = {"weights": state.weights, "background": state.background, **state.extras}
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad or not math.isfinite(state.logit_scale):
        raise AdaptationDiverged(f"the adaptation gave numbers that are not finite: {', '.join(bad) or 'logit_scale'}")
    return state
