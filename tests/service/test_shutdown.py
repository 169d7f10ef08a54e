"""A real server on a real socket: stopping answers everyone, and a caller that hangs up is let go."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn

from adapters import create_adapter
from adapters.clip import Backbone
from service.app import create_app
from service.runtime import Runtime
from service.settings import Settings
from service.stores import Stores
from tests.service.fakes import DictStore, SlowAdapter, soon
from tests.service.served import photo

URL = "/v1/classify?labels=cat,dog"
WAITING = {"Content-Type": "image/png", "Prefer": "wait=30"}


@dataclass
class Process:
    address: str
    runtime: Runtime
    slow: SlowAdapter
    server: uvicorn.Server
    serving: asyncio.Task[None]

    async def stop(self) -> None:
        self.runtime.drain()
        self.server.should_exit = True
        await asyncio.wait_for(self.serving, 10)


@asynccontextmanager
async def running(backbone: Backbone) -> AsyncIterator[Process]:
    slow = SlowAdapter()
    app = create_app(
        Settings(threads=1, shutdown_timeout=5),
        backbone=backbone,
        stores=Stores(DictStore(), DictStore(), "dict"),
        build_adapter=lambda name, options: create_adapter(name, backbone) if name == "zero-shot" else slow,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    process = Process(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.runtime, slow, server, serving)
    try:
        await soon(lambda: server.started)
        yield process
    finally:
        if not serving.done():
            await process.stop()


async def test_stopping_answers_everyone_and_ends_the_device_thread(tiny_backbone: Backbone) -> None:
    async with running(tiny_backbone) as process, httpx.AsyncClient(base_url=process.address, timeout=20) as http:
        record = (await http.post("/v1/label-sets", json={"classes": ["cat", "dog"]})).json()
        calls = [asyncio.ensure_future(http.post(URL, content=photo(), headers=WAITING)) for _ in range(12)]
        events = asyncio.ensure_future(http.get(f"/v1/label-sets/{record['id']}/events"))
        await soon(lambda: process.runtime.admission.running == 12 and process.slow.begun == 1)
        await process.stop()
        answers = await asyncio.wait_for(asyncio.gather(*calls), 5)
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert (await events).status_code == 200
    assert "device" not in {thread.name for thread in threading.enumerate()}


async def test_a_caller_that_hangs_up_is_let_go(tiny_backbone: Backbone) -> None:
    async with running(tiny_backbone) as process:
        async with httpx.AsyncClient(base_url=process.address) as http:
            call = asyncio.ensure_future(http.post(URL, content=photo(), headers=WAITING))
            await soon(lambda: process.runtime.admission.running == 1)
            call.cancel()
        await soon(lambda: process.runtime.admission.running == 0)
        assert process.runtime.metrics.registry.get_sample_value("selftpt_cancelled_total") == 1
