"""The whole application over ASGI, in this process, on the tiny backbone."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI
from PIL import Image

from adapters import create_adapter
from adapters.base import Adapter, InfoValue
from adapters.clip import Backbone
from service.app import create_app
from service.runtime import Runtime
from service.settings import Settings
from service.stores import Stores
from service.telemetry.tracing import Tracing
from tests.service.fakes import DictStore, SlowAdapter


@dataclass
class Kept:
    """Stores that outlive one application, as a restart would find them."""

    records: DictStore = field(default_factory=DictStore)
    states: DictStore = field(default_factory=DictStore)
    cache: DictStore = field(default_factory=DictStore)


@dataclass
class Served:
    app: FastAPI
    http: httpx.AsyncClient
    slow: SlowAdapter
    coop: SlowAdapter
    kept: Kept

    @property
    def runtime(self) -> Runtime:
        runtime = self.app.state.runtime
        assert isinstance(runtime, Runtime)
        return runtime

    def value(self, name: str, **labels: str) -> float:
        return self.runtime.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def served(
    backbone: Backbone,
    kept: Kept | None = None,
    *,
    slow: bool = True,
    tracing: Tracing | None = None,
    stores: Stores | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """With `slow`, self-tpt adapts only after `slow.go` was set, and coop after `coop.go`; without, the real methods
    run. `stores` take the place of `kept`."""
    adapter, coop, kept = SlowAdapter(), SlowAdapter("slow-2", name="coop"), kept or Kept()
    fakes = {fake.name: fake for fake in (adapter, coop)} if slow else {}

    def build(name: str, options: Mapping[str, InfoValue]) -> Adapter:
        real = create_adapter(name, backbone, options)
        return fakes.get(real.name, real)

    app = create_app(
        Settings(threads=1, decode_threads=2, **settings),
        backbone=backbone,
        stores=stores or Stores(kept.records, kept.states, "dict", cache=kept.cache),
        build_adapter=build,
        tracing=tracing,
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        try:
            async with app.router.lifespan_context(app):
                yield Served(app, http, adapter, coop, kept)
                for fake in (adapter, coop):
                    fake.go.set()
        finally:
            for fake in (adapter, coop):
                fake.go.set()


def photo(kind: str = "PNG", size: tuple[int, int] = (60, 40), colour: str = "orange") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()
