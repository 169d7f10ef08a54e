"""State key -> ClassState: hot table, then stores, then the engine, each state computed once at a time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence

import anyio

from adapters.base import ClassState
from adapters.errors import AdapterError
from service.class_states.failures import Failures
from service.class_states.flights import Flight, Reporter, Snapshot, Want, settled_flight
from service.class_states.hot_states import HotStates
from service.class_states.kept_states import KeptStates
from service.class_states.shared_work import CANCELLED, SharedWork, end
from service.compute.engine import Engine
from service.compute.levels import level_of
from service.errors import (
    ComputeError,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    ServiceError,
    ShuttingDown,
)
from service.labels.work_budget import WorkBudget
from service.stores import Store
from service.stores.turns import Alone, Claim, Turns
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing, Untraced

_log = logging.getLogger(__name__)


class States:
    """Used on the event loop only. A failed read means computing again; a failed write means computing again later.

    Many may want the same state at once: one look-up and one adaptation serve them all, and no waiter that gives up
    takes them from the others. With `turns` that holds across the processes that share the store.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        *,
        hot: HotStates,
        metrics: Metrics,
        max_adaptations: int,
        place: Callable[[ClassState], ClassState] = lambda state: state,
        failures: Failures | None = None,
        tracing: Tracing | None = None,
        turns: Turns | None = None,
        budget: WorkBudget | None = None,
    ) -> None:
        """`place` readies a state for scoring, e.g. by moving it to the device. Without a `budget` nothing is too
        much."""
        self.budget = budget or WorkBudget(math.inf)
        self._engine = engine
        self._kept = KeptStates(store, metrics)
        self._shared = SharedWork(turns, Alone(store.put), self._kept.load, metrics)
        self._hot = hot
        self._metrics = metrics
        self._max_adaptations = max_adaptations
        self._place = place
        self._failures = failures or Failures()
        self._tracing = tracing or Untraced()
        self._flights: dict[str, Flight] = {}
        self._adapting = 0
        self._closing = False
        metrics.hot_bytes.set_function(lambda: hot.nbytes)
        metrics.hot_states.set_function(lambda: len(hot))
        metrics.adaptations_running.set_function(lambda: self._adapting)

    def hot(self, key: str) -> ClassState | None:
        state = self._hot.get(key)
        self._metrics.lookups.labels("hot", "miss" if state is None else "hit").inc()
        return state

    def admit(self) -> None:
        """Raises `Overloaded` when so many adaptations wait that no further one is taken."""
        if self._adapting >= self._max_adaptations:
            raise Overloaded(
                f"{self._adapting} label sets are waiting for adaptation, {self._max_adaptations} may",
                retry_after=5.0,
                reason="adaptations",
            )

    def ensure(self, want: Want) -> Flight:
        """The flight of a state, begun now unless it is on its way; settled already when the state is hot, or failed
        so recently that it is not tried again."""
        state = self._hot.get(want.key)
        if state is not None:
            return settled_flight(want, state=state)
        flight = self._flights.get(want.key)
        if flight is not None:
            self._metrics.coalesced.inc()
            return flight
        failure = self._failures.standing(want.key)
        if failure is not None:
            return settled_flight(want, failure=failure)
        flight = Flight(want, released=self._closing)
        self._flights[want.key] = flight
        flight.task = asyncio.get_running_loop().create_task(self._fly(flight), name=f"state {want.key}")
        return flight

    @property
    def under_way(self) -> list[Flight]:
        """What is being computed just now, plain zero-shot apart; oldest first."""
        return [one for one in self._flights.values() if one.looked_up and one.want.adapter.name != "zero-shot"]

    async def known(self, want: Want) -> Snapshot:
        """What is known of a state without computing it."""
        if want.key in self._hot:
            return Snapshot("ready", 1.0)
        flight = self._flights.get(want.key)
        if flight is not None:
            return flight.snapshot
        failure = self._failures.last(want.key)
        if failure is not None:
            return Snapshot.failed(want, 0.0, failure)
        if await self._stored(want) is not None:
            return Snapshot("ready", 1.0)
        return await self._shared.look(want.key) or Snapshot("queued")

    def seconds_left(self, want: Want, snapshot: Snapshot) -> float | None:
        """An estimate for a state that is on its way, waiting for others included; None if nobody can tell."""
        flight, level = self._flights.get(want.key), level_of(want.labels, want.adapter)
        ahead = [one for one in self.under_way if level_of(one.want.labels, one.want.adapter) <= level]
        if flight in ahead:
            ahead = ahead[: ahead.index(flight)]
        return self.budget.seconds_left(want, snapshot, flight.begun if flight is not None else None, ahead)

    async def load(self, want: Want) -> ClassState | None:
        """The state if it is hot or stored."""
        state = self._hot.get(want.key)
        if state is None:
            state = await self._stored(want)
            if state is not None:
                self._hot.put(want.key, state)
        return state

    async def abandon(self, key: str) -> None:
        """Ends a running adaptation without a result, and allows for another try."""
        flight = self._flights.get(key)
        if flight is not None:
            await _ended([flight])
        self._failures.forget(key)
        await self._shared.revoke(key)

    async def forget(self, key: str) -> None:
        """Abandons a running adaptation and drops the state everywhere."""
        await self.abandon(key)
        self._hot.drop(key)
        await self._kept.delete(key)

    def release(self) -> None:
        """Lets go of everyone who waits, because the service is going down."""
        self._closing = True
        for flight in self._flights.values():
            flight.release()

    async def close(self) -> None:
        self.release()
        await _ended(list(self._flights.values()))

    async def _fly(self, flight: Flight) -> None:
        want = flight.want
        try:
            state = await self._stored(want)
            if state is not None:
                self._finish(flight, state)
                return
            flight.missed()
            self.budget.check(want)
            found = await self._shared.outcome(flight)
            if isinstance(found, ClassState):
                self._finish(flight, found)
            else:
                await self._compute(flight, found)
        except asyncio.CancelledError:
            flight.fail(ShuttingDown() if self._closing else ComputeError(CANCELLED))
            raise
        except (AdapterError, ServiceError) as error:
            self._failures.note(want.key, error)
            flight.fail(error)
        finally:
            self._flights.pop(want.key, None)
            flight.fail(InternalError("the adaptation ended without a result"))  # no-op unless something above is wrong

    async def _compute(self, flight: Flight, claim: Claim) -> None:
        def revoked() -> None:
            if flight.task is not None and not flight.final:
                flight.task.cancel()

        async with claim.keep_alive(revoked):
            flight.also = claim.tell
            try:
                state = await self._adapted(flight)
            except asyncio.CancelledError:
                await claim.release()
                raise
            except (AdapterError, ServiceError) as error:
                await end(claim, error)
                raise
            self._finish(flight, state)
            await self._keep(flight.want, state, claim)

    def _finish(self, flight: Flight, state: ClassState) -> None:
        self._failures.forget(flight.want.key)
        placed = self._place(state)
        self._hot.put(flight.want.key, placed)
        flight.succeed(placed)

    async def _adapted(self, flight: Flight) -> ClassState:
        want = flight.want
        zero_shot = want.adapter.name == "zero-shot"
        if not zero_shot:
            self.admit()
        self._adapting += not zero_shot
        began, outcome = time.perf_counter(), "failed"
        started = Reporter(flight)
        try:
            with self._tracing.adaptation(want.key, want.adapter.name, len(want.labels.classes)):
                state = await self._computed(want, started)
            outcome = "ready"
            self.budget.learn(want, time.perf_counter() - started.at)
            return state
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._adapting -= not zero_shot
            if zero_shot:
                self._metrics.zero_shot_states.labels(outcome).inc()
            else:
                self._metrics.adaptations.labels(want.adapter.name, outcome).inc()
                self._metrics.adaptation_seconds.labels("wait").observe(started.at - began)
                self._metrics.adaptation_seconds.labels("adapt").observe(time.perf_counter() - started.at)
                _log.info(
                    "adaptation ended",
                    extra={"adapter": want.adapter.name, "classes": len(want.labels.classes), "outcome": outcome,
                           "seconds": round(time.perf_counter() - started.at, 3)},
                )  # fmt: skip

    async def _computed(self, want: Want, started: Reporter) -> ClassState:
        with anyio.move_on_after(want.deadline):
            support = None if want.support is None else await want.support()
            return await self._engine.adapt(want.labels, want.adapter, started, support)
        raise DeadlineExceeded(f"not done within the deadline of {want.deadline:g} s")

    async def _stored(self, want: Want) -> ClassState | None:
        state = await self._kept.load(want)
        return None if state is None else self._place(state)

    async def _keep(self, want: Want, state: ClassState, claim: Claim) -> None:
        began = time.perf_counter()
        if not await self._kept.keep(want, state, claim):
            self._metrics.leases.labels("fenced").inc()
            official = await self._stored(want)  # everybody shall answer with the same state
            if official is not None:
                self._hot.put(want.key, official)
        self._metrics.adaptation_seconds.labels("store").observe(time.perf_counter() - began)


async def _ended(flights: Sequence[Flight]) -> None:
    """Abandons what is still being computed; what is being stored may end."""
    tasks = [flight.task for flight in flights if flight.task is not None]
    for flight in flights:
        if flight.task is not None and not flight.final:
            flight.task.cancel()
    if tasks:
        await asyncio.wait(tasks)
