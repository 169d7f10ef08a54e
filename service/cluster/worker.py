"""The owner of a device that works for front ends elsewhere: the engine and batcher of a single service, and the class
states it has met. It has no store: who asks for a state that it lacks brings it along."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import torch

from adapters import create_adapter
from adapters.auto import AUTO, Auto
from adapters.base import Adapter, ClassState, Progress
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from adapters.errors import AdapterError
from adapters.registry import METHODS
from service.class_states.hot_states import HotStates
from service.cluster.orders import AdaptOrder, BatchAnswer, BatchOrder, Recipe, Refusal
from service.compute.engine import Scores, Timing
from service.compute.scoring import ImageJob
from service.compute.served_engine import ServedEngine
from service.compute.work_queue import Asker
from service.errors import ComputeError, InternalError, ServiceError
from service.stores.turns import Failed


class Worker:
    """Used on one event loop."""

    def __init__(
        self,
        backbone: Backbone,
        engine: ServedEngine,
        *,
        hot_bytes: int,
        ended: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """`ended` is told how each adaptation ended: ready, failed, refused, left."""
        self._backbone = backbone
        self._engine = engine
        self._states = HotStates(hot_bytes)
        self._adapters: dict[str, Adapter] = {}
        self._ended = ended

    async def classify(self, order: BatchOrder) -> BatchAnswer:
        try:
            brought = {key: self._engine.place(state_from_bytes(blob)) for key, blob in order.states.items()}
            for key, state in brought.items():
                self._states.put(key, state)
            states = {one.state: brought.get(one.state) or self._states.get(one.state) for one in order.images}
            missing = frozenset(key for key, state in states.items() if state is None)
            if missing:
                return BatchAnswer(missing=missing)
            outcomes = await self._engine.classify(self._jobs(order, states))
        except ServiceError as error:
            return BatchAnswer((Refusal.of(error),) * len(order.images))
        except AdapterError as error:
            return BatchAnswer((Refusal("ComputeError", str(error)),) * len(order.images))
        return BatchAnswer(tuple(_sendable(one) for one in outcomes))

    async def adapt(self, order: AdaptOrder) -> AsyncIterator[float | bytes | Failed | Refusal]:
        """Progress while it goes on, then one outcome. Leaving the iterator abandons the adaptation."""
        news: asyncio.Queue[float | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(fraction: float) -> None:
            loop.call_soon_threadsafe(news.put_nowait, fraction)

        working = loop.create_task(self._adapted(order, tell))
        working.add_done_callback(lambda _: news.put_nowait(None))
        try:
            while (fraction := await news.get()) is not None:
                while not news.empty() and (later := news.get_nowait()) is not None:
                    fraction = later
                if working.done():
                    break
                yield fraction
            yield await working
        finally:
            working.cancel()

    async def probe(self) -> Timing:
        return replace(await self._engine.probe(), trace=None)

    async def _adapted(self, order: AdaptOrder, tell: Progress) -> bytes | Failed | Refusal:
        outcome = "left"
        try:
            adapter = self._adapter(order.recipe)
            state = await self._engine.adapt(order.labels, adapter, tell, order.support)
            made = await asyncio.to_thread(state_to_bytes, state)
            outcome = "ready"
            return made
        except (AdapterError, ComputeError) as error:
            outcome = "failed"
            return Failed(type(error).__name__, str(error))
        except ServiceError as error:
            outcome = "refused"
            return Refusal.of(error)
        finally:
            self._ended(outcome)

    def _jobs(self, order: BatchOrder, states: dict[str, ClassState | None]) -> list[ImageJob]:
        pixels = torch.from_numpy(order.pixels.copy() if not order.pixels.flags.writeable else order.pixels)
        asker = Asker(order.client, time.perf_counter() + order.seconds)
        jobs = []
        for row, one in enumerate(order.images):
            state, recipe = states[one.state], one.recipe
            assert state is not None
            adapter = None if recipe is None else self._adapter(recipe)
            jobs.append(ImageJob(pixels[row], state, order.needs, one.top_k, one.scores, adapter, asker=asker))
        return jobs

    def _adapter(self, recipe: Recipe) -> Adapter:
        known = self._adapters.get(recipe.version)
        if known is None:
            known = self._built(recipe)
            if known.version != recipe.version:
                raise InternalError(f"this worker's {recipe.name} is of another version than the front end's")
            self._adapters[recipe.version] = known
        return known

    def _built(self, recipe: Recipe) -> Adapter:
        if recipe.name == AUTO:
            offered = [name for name, facts in METHODS.items() if facts.support]
            return Auto(lambda name, options: create_adapter(name, self._backbone, options), offered)
        return create_adapter(recipe.name, self._backbone, recipe.options)


def _sendable(outcome: Scores | ServiceError) -> Scores | Refusal:
    if isinstance(outcome, ServiceError):
        return Refusal.of(outcome)
    return replace(outcome, timing=replace(outcome.timing, trace=None))
