"""Many callers, one device thread. Forms image batches without a timer and runs longer jobs between them.

A batch is what arrived while the last one ran. Longer jobs (class states, adaptations) have a level; whenever one calls
its checkpoint, waiting work of lower levels is served first, within a share of the device. Knows no models.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic

from adapters.errors import AdaptationCancelled, AdapterError
from service.compute.batch_costs import UNBOUNDED, BatchCosts, Bounds
from service.compute.device_thread import PAUSES, DeviceThread
from service.compute.fair_shares import has_place
from service.compute.out_of_memory import BatchSizes, is_out_of_memory
from service.compute.outcomes import attempt, settle, settle_each
from service.compute.work_queue import ANYBODY, Asker, Checkpoint, Item, Job, Key, Load, Payload, Result, WorkQueue
from service.errors import ComputeError, DeviceDead, DeviceFull, InternalError, Overloaded, ServiceError, ShuttingDown

_log = logging.getLogger(__name__)

TOO_LARGE = "the device has too little memory for this work"

Run = Callable[[Key, Sequence[Payload]], Sequence[Result | Exception]]
"""One batch of one kind: as many results as payloads, in order. An exception as a result is that payload's own."""


class Batcher(Generic[Key, Payload, Result]):
    """Promises: kinds never mix, the item whose turn it is decides the kind; clients take turns; a failed batch fails
    alone and one bad item does not fail its neighbours; a batch that memory is too small for is halved; a caller that
    went away costs nothing; too many waiting are refused at once; stopping, or the death of the thread, answers
    everyone, and a thread that died is started again.
    """

    def __init__(
        self,
        run: Run[Key, Payload, Result],
        *,
        max_batch: Callable[[Key], int],
        max_waiting: int,
        cost: Callable[[Key], float] = lambda _: 1.0,
        share: float = 4.0,
        bounds: Callable[[], Bounds] = lambda: UNBOUNDED,
        patience: float = 1.0,
        prepare: Callable[[], None] | None = None,
        pauses: Sequence[float] = PAUSES,
        restarted: Callable[[], None] = lambda: None,
    ) -> None:
        """`cost`: what one item of a kind counts in its client's share. `share`: at a checkpoint, lower levels may take
        this many times as long as the job's last slice took. `bounds` of the next batch.
        `patience`: seconds after which a waiting job is begun although images keep coming. `prepare` runs first on the
        device thread, which starts again after `pauses`; `restarted` hears of it on the event loop."""
        self._run = run
        self._share = share
        self._bounds = bounds
        self._patience = patience
        self._prepare = prepare
        self._max_waiting = max_waiting
        self._max_batch = BatchSizes(max_batch)
        self._queue: WorkQueue[Key, Payload, Result] = WorkQueue(max_batch=self._size)
        self._cost = cost
        self._costs: BatchCosts[Key] = BatchCosts()
        self._jobs_running = 0
        self._stopping = False
        self._job_was_last = False
        self._thread = DeviceThread(self._live, died=self._answer_left, restarted=restarted, pauses=pauses)
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- on the event loop ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.alive and not self._stopping

    @property
    def thread_alive(self) -> bool:
        """Whether the device thread still runs, also after `stop` lost its patience with it."""
        return self._thread.running

    @property
    def given_up(self) -> bool:
        """Whether the device thread died too often to be started again."""
        return self._thread.given_up

    @property
    def waiting(self) -> int:
        return self._queue.items_waiting

    @property
    def jobs_waiting(self) -> int:
        return self._queue.jobs_waiting

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest waiting item has waited."""
        return self._queue.oldest_seconds(time.perf_counter())

    @property
    def busy_since(self) -> float | None:
        """When the oldest work that the device thread has taken was queued (`time.perf_counter()`); None while idle."""
        return min((work.since for work in self._queue.in_flight()), default=None)

    def admit(self, count: int, asker: Asker = ANYBODY) -> None:
        """Raises `Overloaded` when `count` more items would be too many. Cheap enough to ask before decoding. Whether
        they would be in time is asked elsewhere: see `service.compute.backlog`."""
        load = self._queue.load()
        held = load.clients.get(asker.client, 0)
        if not has_place(count, held=held, total=load.total, most=self._max_waiting):
            detail = f"{load.total} images are waiting ({held} of this client), {self._max_waiting} may"
            raise Overloaded(detail, retry_after=self._drain(load))

    async def submit(
        self, key: Key, payloads: Sequence[Payload], asker: Asker = ANYBODY, *, urgent: bool = False
    ) -> list[Result | Exception]:
        """All of `payloads` are admitted or none; each has its own outcome. `urgent` passes the limit (probes)."""
        if not urgent:
            self.admit(len(payloads), asker)
        future = asyncio.get_running_loop().create_future
        cost = self._cost(key)
        items = [
            Item[Key, Payload, Result](key, payload, future(), client=asker.client, cost=cost) for payload in payloads
        ]
        self._queue.add_items(items)
        self._answer_if_over()
        try:
            return list(await asyncio.gather(*(item.future for item in items)))
        finally:
            self._queue.discard(items)

    def measured(self, key: Key, alone: float, several: float, count: int) -> None:
        """See `BatchCosts.measured`."""
        self._costs.measured(key, alone, several, count)

    def _drain(self, load: Load[Key]) -> float:
        """Expected seconds until all that waits is done."""
        seconds = sum(self._costs.drain(key, count, self._size(key)) for key, count in load.kinds.items())
        return seconds * self._slowed

    def _size(self, key: Key) -> int:
        return self._costs.worthwhile(key, self._max_batch(key), self._bounds())

    @property
    def _slowed(self) -> float:
        """A job that runs takes its share of the device."""
        return 1 + 1 / self._share if self._jobs_running else 1.0

    async def run(self, level: int, work: Callable[[Checkpoint], Any]) -> Any:
        """Runs `work(checkpoint)` on the device thread. Cancelling the caller abandons it at its next checkpoint."""
        assert level > 0
        job = Job(level, work, asyncio.get_running_loop().create_future())
        self._queue.add_job(job)
        self._answer_if_over()
        try:
            return await job.future
        finally:
            job.gone = True

    async def stop(self, *, timeout: float = 10.0) -> None:
        """Answers everyone. The batch that is running may finish within `timeout` seconds and give its results; the
        others are told that the service is shutting down."""
        self._stopping = True
        self._thread.stop()
        self._queue.close()
        settle(self._queue.drain(), ShuttingDown)
        await self._thread.ended(timeout)
        settle([*self._queue.drain(), *self._queue.in_flight()], ShuttingDown)

    def _answer_if_over(self) -> None:
        """Asked after queueing, so that work queued while the thread ends is answered too."""
        if self._stopping:
            settle(self._queue.drain(), ShuttingDown)
        elif not self._thread.alive:
            settle(self._queue.drain(), DeviceDead)

    # -- on the device thread ---------------------------------------------------------------------------------------

    def _live(self) -> None:
        if self._prepare is not None:
            self._prepare()
        while self._queue.wait():
            self._serve_next(patience=None if self._job_was_last else self._patience)

    def _answer_left(self) -> None:
        """The last words of a thread, whatever ended it."""
        reason = ShuttingDown if self._stopping else DeviceDead
        left = [*self._queue.drain(), *self._queue.in_flight()]
        self._queue.done(left)
        self._jobs_running = 0
        self._deliver([(work, reason()) for work in left])

    def _serve_next(self, *, below: int | None = None, patience: float | None = None) -> bool:
        """Serves one batch or one job of a level `below`; False when none waits."""
        work = self._queue.take(below=below, patience=patience)
        self._job_was_last = isinstance(work, Job)
        if work is None:
            return False
        if isinstance(work, Job):
            self._serve_job(work)
        else:
            self._serve_batch(work)
        return True

    def _serve_batch(self, items: list[Item[Key, Payload, Result]]) -> None:
        began, key = time.perf_counter(), items[0].key
        outcomes = self._outcomes(items)
        self._costs.note(key, len(items), time.perf_counter() - began)
        self._deliver(list(zip(items, outcomes, strict=True)))
        self._queue.done(items)

    def _outcomes(self, items: list[Item[Key, Payload, Result]]) -> list[Result | Exception]:
        """One outcome per item. When a batch fails, each of its items is tried once alone; when memory is too small for
        it, each of its halves."""
        results = attempt(lambda: list(self._run(items[0].key, [item.payload for item in items])))
        if isinstance(results, Exception) and is_out_of_memory(results):
            results.__traceback__ = None  # its frames hold the tensors that did not fit
            return self._halved(items)
        if isinstance(results, Exception):
            _log.error("a batch failed", extra={"size": len(items)}, exc_info=results)
            if len(items) > 1:
                return [outcome for item in items for outcome in self._outcomes([item])]
            return [ComputeError(f"the model failed on this image: {type(results).__name__}")]
        if len(results) != len(items):
            _log.error("a batch gave a wrong number of results", extra={"size": len(items), "results": len(results)})
            return [InternalError("the model gave a wrong number of results") for _ in items]
        return results

    def _halved(self, items: list[Item[Key, Payload, Result]]) -> list[Result | Exception]:
        size = len(items)
        _log.error("the device has too little memory for a batch", extra={"size": size})
        self._max_batch.did_not_fit(items[0].key, size)
        if size == 1:
            return [DeviceFull("the device has too little memory for this image just now")]
        return [*self._outcomes(items[: size // 2]), *self._outcomes(items[size // 2 :])]

    def _serve_job(self, job: Job) -> None:
        began = time.perf_counter()

        def checkpoint() -> None:
            nonlocal began
            now = time.perf_counter()
            until = now + self._share * (now - began)
            while not self._stopping and self._serve_next(below=job.level) and time.perf_counter() < until:
                pass
            if job.gone or self._stopping:
                raise AdaptationCancelled("nobody waits for this any more")
            began = time.perf_counter()

        self._jobs_running += 1
        outcome = attempt(lambda: job.work(checkpoint))
        self._jobs_running -= 1
        if isinstance(outcome, AdaptationCancelled) and self._stopping:
            outcome = ShuttingDown()
        elif isinstance(outcome, Exception) and not isinstance(outcome, (AdapterError, ServiceError)):
            _log.error("a job failed", extra={"level": job.level}, exc_info=outcome)
            full = is_out_of_memory(outcome)
            outcome = ComputeError(TOO_LARGE if full else f"{type(outcome).__name__}: {outcome}")
        self._job_was_last = True
        self._deliver([(job, outcome)])
        self._queue.done([job])

    def _deliver(self, outcomes: Sequence[tuple[Any, Any]]) -> None:
        """One wake-up of the event loop for a whole batch."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(settle_each, outcomes)
        except RuntimeError:
            _log.warning("the event loop closed before its answers came", extra={"unanswered": len(outcomes)})
