"""The running service: what one process opens at start and closes at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

from adapters.clip import Backbone
from adapters.engines.base import Decision
from adapters.errors import AdapterError
from adapters.registry import METHODS, Method
from service.compute.admission import Admission
from service.compute.backlog import Backlog
from service.compute.engine import LocalEngine
from service.compute.image_engine import settings_backbone, with_engine
from service.compute.served_engine import OpenEngine
from service.core import Core, build_core, with_text_features
from service.errors import NotReady, ServiceError
from service.labels.plans import BuildAdapter
from service.labels.preload import Preload
from service.security.keyring import Keyring
from service.security.keys import DEFAULT_TENANT
from service.settings import Settings, listed, unknown_variables
from service.stores import Stores, Watch, open_stores
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing, Untraced
from service.telemetry.window import RollingWindow

_log = logging.getLogger(__name__)

DISTRIBUTION = "self-tpt-service"


class Runtime:
    def __init__(
        self,
        settings: Settings,
        *,
        backbone: Backbone | None = None,
        stores: Stores | None = None,
        build_adapter: BuildAdapter | None = None,
        methods: Mapping[str, Method] = METHODS,
        tracing: Tracing | None = None,
        open_engine: OpenEngine | None = None,
    ) -> None:
        self.settings = settings
        self.tracing = tracing or open_tracing(settings)
        self.metrics = Metrics(None if isinstance(self.tracing, Untraced) else self.tracing.stage)
        self.metrics.show_limits(settings.limits)
        self.window = RollingWindow(self.metrics)
        self.admission = Admission(settings.max_in_flight, self.metrics)
        self.backlog = Backlog()
        self.evaluations = Admission(settings.max_evaluations, self.metrics)
        self.keyring = None if settings.api_keys_file is None else Keyring(settings.api_keys_file)
        self.draining = False
        self.start_failure: str | None = None
        self.engine_decision: Decision | None = None
        self._backbone = backbone
        self._build_adapter = build_adapter
        self._open_engine = open_engine
        self.methods = methods
        self._given_stores = stores
        self._stores: Stores | None = None
        self._core: Core | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._sampling: asyncio.Task[None] | None = None
        self.preload: Preload | None = None
        self._preloading: asyncio.Task[None] | None = None

    @property
    def core(self) -> Core:
        if self._core is None:
            raise NotReady("the model is still loading")
        return self._core

    @property
    def stores(self) -> Stores:
        if self._stores is None:
            raise NotReady("the stores are not open yet")
        return self._stores

    @property
    def device_busy(self) -> bool:
        """Whether the device thread still runs. After `stop` that means: it did not end in time."""
        return self._core is not None and self._core.engine.batcher.thread_alive

    @property
    def beyond_help(self) -> bool:
        """Whether only a new process can serve: the device thread died too often to be started again."""
        return self._core is not None and self._core.engine.batcher.given_up

    async def start(self) -> None:
        """Blocks until a first batch went through the device. Raises what keeps the service from starting, and keeps
        its text in `start_failure` where that says all there is to know."""
        try:
            await self._start()
        except (ServiceError, AdapterError) as error:
            self.start_failure = str(error)
            raise

    async def _start(self) -> None:
        for name in unknown_variables():
            _log.warning("no setting reads this variable", extra={"variable": name})
        stores = self._stores = self._given_stores or await self._open_stores()
        loaded = self._backbone
        if loaded is None:
            loaded = await asyncio.to_thread(settings_backbone, self.settings)
        backbone = loaded
        if self._open_engine is None:  # else the image tower of this process is not used
            backbone, self.engine_decision = await asyncio.to_thread(with_engine, self.settings, loaded)
        core = build_core(
            self.settings,
            self._remembering(backbone),
            stores,
            self.metrics,
            tracing=self.tracing,
            build_adapter=self._build_adapter,
            methods=self.methods,
            open_engine=self._open_engine,
            backlog=self.backlog,
        )
        self._core = core  # before the probe, so that `stop` finds it whatever happens
        core.engine.start()
        await core.engine.probe()  # warms up
        timing = await core.engine.probe()
        self.backlog.pace.guess(timing.batch + timing.forward + timing.head)
        self.metrics.ready.set(1)
        if isinstance(core.engine, LocalEngine):
            await core.engine.measure_batches()
            core.label_sets.states.budget.calibrate(await core.engine.text_speed())
        self.metrics.watch_tasks(partial(_tasks_of, asyncio.get_running_loop()))
        self.preload = Preload(core.label_sets, sorted(listed(self.settings.preload)))
        self._preloading = asyncio.get_running_loop().create_task(self.preload.run())
        self._resuming = asyncio.get_running_loop().create_task(self._resume(core))
        self._sampling = asyncio.get_running_loop().create_task(self.window.run(self._ask_store))
        _log.info("ready", extra={"backbone": backbone.name, "device": str(backbone.device)})

    def drain(self) -> None:
        """Lets go of everyone who waits for an adaptation or follows one; readiness turns red. Idempotent."""
        self.draining = True
        if self._core is not None:
            self._core.label_sets.states.release()

    async def stop(self) -> None:
        self.drain()
        ending = [task for task in (self._resuming, self._sampling, self._preloading) if task is not None]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        if self._core is not None:
            for core in self._core.cores.values():
                await core.fits.close()
            await self._core.label_sets.states.close()
            await self._core.engine.stop(timeout=self.settings.shutdown_timeout)
            self._core.decoder.close()
        if self._stores is not None:
            await self._stores.close()
        await asyncio.to_thread(self.tracing.close)

    def _remembering(self, backbone: Backbone) -> Backbone:
        """Text features are shared between label sets, so their speed would tell one tenant about another's classes."""
        if self.keyring is not None and len(self.keyring.tenants) > 1:
            _log.info("text features are not remembered: there are several tenants")
            return backbone
        return with_text_features(self.settings, backbone, self.metrics)

    async def _open_stores(self) -> Stores:
        errors = self.metrics.dependency_errors
        watch = Watch(
            up=lambda found: self.metrics.dependency_up.labels("redis").set(found),
            trouble=lambda kind: errors.labels("redis", kind).inc(),
            lost=lambda reason: self.metrics.leases.labels("lost").inc(),
        )
        return await asyncio.to_thread(open_stores, self.settings, observe=self._saw_lookup, watch=watch)

    async def _resume(self, core: Core) -> None:
        try:
            tenants = self.keyring.tenants if self.keyring is not None else []
            begun = sum([await core.of(one).label_sets.resume() for one in {DEFAULT_TENANT, *tenants}])
        except ServiceError as error:
            _log.warning("stored label sets were not looked through", extra={"error": error.detail})
        else:
            _log.info("stored label sets looked through", extra={"adapted": begun})

    async def _ask_store(self) -> None:
        self.metrics.dependency_up.labels(self.stores.backend).set(await self.stores.problem() is None)

    def _saw_lookup(self, tier: str, result: str) -> None:
        self.metrics.lookups.labels(tier, result).inc()


def _tasks_of(loop: asyncio.AbstractEventLoop) -> int:
    return len(asyncio.all_tasks(loop))


def open_tracing(settings: Settings) -> Tracing:
    if settings.traces_endpoint is None:
        return Untraced()
    # Only now: OpenTelemetry is an extra, and what is off shall cost nothing.
    from service.telemetry.otel import otlp_tracing  # noqa: PLC0415

    return otlp_tracing(settings.traces_endpoint, sample=settings.traces_sample, version=version(DISTRIBUTION))
