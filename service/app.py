"""Wiring and lifespan, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

from adapters.clip import Backbone
from adapters.registry import METHODS, Method
from service.compute.served_engine import OpenEngine
from service.console import mount_console
from service.dashboard import routes as dashboard
from service.http import openapi
from service.http.body_limit import BodyLimitMiddleware
from service.http.entry import EntryMiddleware
from service.http.problems import install_problems
from service.http.unread import UnreadBodyMiddleware
from service.labels.plans import BuildAdapter
from service.protocols import hugging_face, open_inference
from service.readiness import ReadinessCheck
from service.routes import classify, evaluate, fits, label_sets, ops, support
from service.runtime import Runtime
from service.security.door import close_door
from service.security.headers import SecurityHeadersMiddleware
from service.settings import Settings
from service.stores import Stores
from service.telemetry.access import AccessMiddleware
from service.telemetry.logging import configure_logging
from service.telemetry.tracing import Tracing


def create_app(
    settings: Settings,
    *,
    backbone: Backbone | None = None,
    stores: Stores | None = None,
    build_adapter: BuildAdapter | None = None,
    methods: Mapping[str, Method] = METHODS,
    tracing: Tracing | None = None,
    open_engine: OpenEngine | None = None,
) -> FastAPI:
    """The application. What is not given is opened at start-up as the settings say, and closed at the end.

    `app.state.runtime.drain()` may be called when the process is told to end: it lets go of everyone who waits, so
    that the server's graceful shutdown is not held up.
    """
    runtime = Runtime(
        settings,
        backbone=backbone,
        stores=stores,
        build_adapter=build_adapter,
        methods=methods,
        tracing=tracing,
        open_engine=open_engine,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure_logging(settings.log_level, settings.log_format)
        try:
            await runtime.start()
            yield
        finally:
            await runtime.stop()

    app = FastAPI(
        title=openapi.TITLE, version=openapi.VERSION, lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.state.runtime = runtime
    app.state.readiness = ReadinessCheck(runtime)
    for part in (classify, label_sets, support, fits, evaluate, ops, dashboard, hugging_face, open_inference, openapi):
        app.include_router(part.router)
    mount_console(app)
    dashboard.mount_dashboard(app)
    install_problems(app)
    app.add_middleware(
        BodyLimitMiddleware,
        max_body_bytes=settings.max_body_bytes,
        max_held_bytes=settings.max_held_bytes,
        timeout=settings.request_timeout,
    )
    _refuse_early(app, runtime)
    close_door(app, runtime)
    app.add_middleware(AccessMiddleware, metrics=runtime.metrics, tracing=runtime.tracing)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(UnreadBodyMiddleware, max_bytes=settings.max_body_bytes)
    app.openapi = lambda: openapi.openapi_document(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _refuse_early(app: FastAPI, runtime: Runtime) -> None:
    app.add_middleware(
        EntryMiddleware,
        admission=runtime.admission,
        backlog=runtime.backlog,
        metrics=runtime.metrics,
        timeout=runtime.settings.request_timeout,
        longest_wait=runtime.settings.max_wait_seconds,
    )
