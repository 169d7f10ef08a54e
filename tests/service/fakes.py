"""Small stand-ins for what is slow or outside: a store in a dict, and an adapter that waits to be told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from adapters.base import PLAIN, ClassState, ImageNeeds, LabelSet, Progress, Support
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged
from service.errors import StoreError


@dataclass
class DictStore:
    """Keeps the order of calls; `broken` makes every call fail as an unreachable store would."""

    content: dict[str, bytes] = field(default_factory=dict)
    broken: bool = False
    puts: int = 0

    def _reach(self) -> None:
        if self.broken:
            raise StoreError("the store is down")

    async def get(self, key: str) -> bytes | None:
        await asyncio.sleep(0)
        self._reach()
        return self.content.get(key)

    async def put(self, key: str, value: bytes) -> None:
        await asyncio.sleep(0)
        self._reach()
        self.puts += 1
        self.content[key] = value

    async def delete(self, key: str) -> bool:
        self._reach()
        return self.content.pop(key, None) is not None

    async def keys(self, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        self._reach()
        return sorted(key for key in self.content if key.startswith(prefix) and key > after)[:limit]

    async def close(self) -> None:
        pass


class SlowAdapter:
    """Named like the real method; adapts in small slices until `go` is set, then fails or succeeds.
    `spoiled`: with a NaN."""

    def __init__(self, version: str = "slow-1", *, name: str = "self-tpt") -> None:
        self.name = name
        self.version = version
        self.supports: list[Support | None] = []
        self.go = threading.Event()
        self.fail = False
        self.spoiled = False
        self.begun = 0

    def needs(self, state: ClassState) -> ImageNeeds:
        return PLAIN

    def adapt(
        self,
        labels: LabelSet,
        backbone: Backbone,
        support: Support | None = None,
        progress: Progress | None = None,
    ) -> ClassState:
        self.begun += 1
        self.supports.append(support)
        fraction = 0.0
        while not self.go.wait(0.005):
            fraction = min(fraction + 0.05, 0.9)
            if progress is not None:
                progress(fraction)
        if self.fail:
            raise AdaptationDiverged("the loss became nan")
        rows = torch.nn.functional.normalize(torch.randn(len(labels.classes), backbone.embed_dim), dim=1)
        if self.spoiled:
            rows[0, 0] = float("nan")
        return ClassState(self.name, self.version, rows, rows[0].clone(), backbone.logit_scale, info={"steps": 3})


async def soon(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds; fails after five seconds."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen")
