"""A discrete-event model of front ends and workers: where requests wait, and which part is full first. Pure Python;
what it is fed with comes from `benchmarks.scaling`.

A request passes its front end's loop (parsing), a decoder, the loop of a worker, the device with whatever else waits
there (a batch costs `fixed + each * images`, no timer), and its front end's loop again (the answer).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

Seconds = float
Steps = Generator["Wait", None, None]


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of work per image. `store` is a look-up in Redis, which `store_share` of the requests make."""

    parse: Seconds
    decode: Seconds
    answer: Seconds
    hand_over: Seconds
    device_fixed: Seconds
    device_each: Seconds
    store: Seconds = 0.0
    store_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Plant:
    """`decoders` per front end. `cores`: when given, loops, decoders and devices share so many cores, as on one
    machine; else each has its own."""

    front_ends: int
    decoders: int
    workers: int
    max_batch: int
    cores: int | None = None


@dataclass(slots=True, eq=False)
class Wait:
    """One stay at a station: `seconds` of its work."""

    station: Station
    seconds: Seconds


@dataclass(slots=True, eq=False)
class Station:
    """`servers` of one kind in front of one line. A station with `batch` takes up to so many of its line at once, and
    needs `fixed` seconds for each taking."""

    name: str
    servers: int
    batch: int = 1
    fixed: Seconds = 0.0
    line: deque[tuple[Steps, Seconds]] = field(default_factory=deque)
    running: int = 0
    busy: Seconds = 0.0

    @property
    def load(self) -> int:
        return len(self.line) + self.running


@dataclass(slots=True)
class Outcome:
    """`busy`: the share of time that the stations of each kind worked."""

    rate: float
    latencies: list[Seconds]
    busy: dict[str, float]
    mean_batch: float

    def quantile(self, fraction: float) -> Seconds:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


class Simulation:
    def __init__(self, plant: Plant, costs: Costs, seed: int = 0) -> None:
        self.plant, self.costs = plant, costs
        self._random = random.Random(seed)
        self._now = 0.0
        self._events: list[tuple[Seconds, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._free_cores = plant.cores
        self._starved: deque[Station] = deque()
        self._loops = [Station("front-end loop", 1) for _ in range(plant.front_ends)]
        self._decoders = [Station("decoders", plant.decoders) for _ in range(plant.front_ends)]
        self._hands = [Station("worker loop", 1) for _ in range(plant.workers)]
        self._devices = [
            Station("device", 1, batch=plant.max_batch, fixed=costs.device_fixed) for _ in range(plant.workers)
        ]
        self._store = Station("store", 1)
        self._latencies: list[Seconds] = []
        self._batches = [0, 0]

    def open_loop(self, rate: float, seconds: float, *, warm_up: float = 0.2) -> Outcome:
        """Requests that come at random, `rate` a second, whatever the answers do."""

        def arrive() -> None:
            self._begin(self._request(self._now >= warm_up))
            if self._now < seconds:
                self._at(self._random.expovariate(rate), arrive)

        self._at(0.0, arrive)
        return self._outcome(seconds, warm_up)

    def closed_loop(self, callers: int, seconds: float, *, warm_up: float = 0.2) -> Outcome:
        """Callers that send their next request when the last was answered."""

        def caller() -> Steps:
            while self._now < seconds:
                yield from self._request(self._now >= warm_up)

        for _ in range(callers):
            self._begin(caller())
        return self._outcome(seconds, warm_up)

    def _request(self, counted: bool) -> Steps:
        costs, began = self.costs, self._now
        front = self._random.randrange(self.plant.front_ends)
        yield Wait(self._loops[front], costs.parse)
        if costs.store_share and self._random.random() < costs.store_share:
            yield Wait(self._store, costs.store)
        yield Wait(self._decoders[front], costs.decode)
        worker = self._shorter_of_two()
        if costs.hand_over:
            yield Wait(self._hands[worker], costs.hand_over)
        yield Wait(self._devices[worker], costs.device_each)
        yield Wait(self._loops[front], costs.answer)
        if counted:
            self._latencies.append(self._now - began)

    def _shorter_of_two(self) -> int:
        one, other = (self._random.randrange(self.plant.workers) for _ in range(2))
        return one if self._load(one) <= self._load(other) else other

    def _load(self, worker: int) -> int:
        return self._hands[worker].load + self._devices[worker].load

    # -- the machinery ----------------------------------------------------------------------------------------------

    def _at(self, delay: Seconds, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + delay, next(self._numbers), what))

    def _begin(self, steps: Steps) -> None:
        """Goes on to the next station of a request, or ends it."""
        wait = next(steps, None)
        if wait is not None:
            wait.station.line.append((steps, wait.seconds))
            self._serve(wait.station)

    def _serve(self, station: Station) -> None:
        while station.line and station.running < station.servers:
            if self._free_cores == 0 and station is not self._store:
                self._starved.append(station)
                return
            taken = [station.line.popleft() for _ in range(min(len(station.line), station.batch))]
            seconds = station.fixed + sum(each for _, each in taken)
            station.running += 1
            station.busy += seconds
            self._take_core(station, -1)
            if station.batch > 1:
                self._batches[0] += 1
                self._batches[1] += len(taken)
            self._at(seconds, lambda s=station, t=taken: self._done(s, t))  # type: ignore[misc]  # bound at once

    def _done(self, station: Station, taken: list[tuple[Steps, Seconds]]) -> None:
        station.running -= 1
        self._take_core(station, +1)
        for steps, _ in taken:
            self._begin(steps)
        self._serve(station)
        for _ in range(len(self._starved)):
            self._serve(self._starved.popleft())

    def _take_core(self, station: Station, change: int) -> None:
        if self._free_cores is not None and station is not self._store:
            self._free_cores += change

    def _outcome(self, seconds: float, warm_up: float) -> Outcome:
        while self._events and self._events[0][0] <= seconds:
            self._now, _, what = heapq.heappop(self._events)
            what()
        kinds: dict[str, list[float]] = {}
        for one in (*self._loops, *self._decoders, *self._hands, *self._devices, self._store):
            kinds.setdefault(one.name, []).append(one.busy / (seconds * one.servers))
        busy = {name: sum(shares) / len(shares) for name, shares in kinds.items()}
        rate = len(self._latencies) / (seconds - warm_up)
        return Outcome(rate, self._latencies, busy, self._batches[1] / max(1, self._batches[0]))


def ceilings(plant: Plant, costs: Costs) -> dict[str, float]:
    """Images a second at which each kind of station is full, batches being full as well."""
    each = {
        "front-end loop": (plant.front_ends, costs.parse + costs.answer),
        "decoders": (plant.front_ends * plant.decoders, costs.decode),
        "worker loop": (plant.workers, costs.hand_over),
        "device": (plant.workers, costs.device_each + costs.device_fixed / plant.max_batch),
        "store": (1, costs.store * costs.store_share),
    }
    return {name: count / seconds for name, (count, seconds) in each.items() if seconds > 0}


def bottleneck(plant: Plant, costs: Costs) -> tuple[str, float]:
    found: Any = min(ceilings(plant, costs).items(), key=lambda one: one[1])
    name, rate = found
    return str(name), float(rate)
