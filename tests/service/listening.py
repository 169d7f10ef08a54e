"""The application behind a real socket, in a thread of this process, for clients that bring their own HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from adapters.clip import Backbone
from service.app import create_app
from service.settings import Settings
from service.stores import Stores
from tests.service.fakes import DictStore


@contextmanager
def listening(backbone: Backbone, **settings: Any) -> Iterator[str]:
    """Its address."""
    app = create_app(
        Settings(threads=1, decode_threads=2, log_level="error", **settings),
        backbone=backbone,
        stores=Stores(DictStore(), DictStore(), "dict"),
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server ended"
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
