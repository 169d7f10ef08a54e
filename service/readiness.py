"""Whether the service can do its work: a real image goes through the device thread, the store is asked."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import anyio

from service.errors import DeadlineExceeded, ServiceError
from service.runtime import Runtime
from service.schemas import Check, Readiness


@dataclass(slots=True, eq=False)
class ReadinessCheck:
    """Remembers its finding for `fresh` seconds, so that asking often costs little; one check runs at a time."""

    runtime: Runtime
    timeout: float = 5.0
    fresh: float = 0.5
    _found: Readiness | None = None
    _when: float = 0.0
    _running: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self) -> Readiness:
        async with self._running:
            if self._found is None or self.runtime.draining or time.monotonic() - self._when > self.fresh:
                self._found = await self._check()
                self._when = time.monotonic()
            return self._found

    async def _check(self) -> Readiness:
        checks = [self._accepting(), *self._preloaded(), await self._device(), await self._store()]
        failed = any(check.status == "failed" for check in checks)
        degraded = any(check.status == "degraded" for check in checks)
        self.runtime.metrics.ready.set(not failed)
        return Readiness(status="unready" if failed else "degraded" if degraded else "ready", checks=checks)

    def _accepting(self) -> Check:
        if self.runtime.draining:
            return Check(name="accepting", status="failed", detail="the service is shutting down")
        return Check(name="accepting", status="ok")

    def _preloaded(self) -> list[Check]:
        preload = self.runtime.preload
        if preload is None or not (preload.waiting or preload.failed):
            return []
        if preload.waiting:
            return [Check(name="preload", status="failed", detail=f"{len(preload.waiting)} label sets to go")]
        detail = "; ".join(f"{one}: {error}" for one, error in preload.failed.items())
        return [Check(name="preload", status="degraded", detail=detail)]

    async def _device(self) -> Check:
        try:
            timing = await self._probed()
        except ServiceError as error:
            return Check(name="device", status="failed", detail=error.detail)
        return Check(name="device", status="ok", detail=f"a tiny batch took {1000 * timing:.1f} ms")

    async def _probed(self) -> float:
        began = time.perf_counter()
        with anyio.move_on_after(self.timeout):
            await self.runtime.core.engine.probe()
            return time.perf_counter() - began
        raise DeadlineExceeded(f"the device thread did not answer within {self.timeout:g} s")

    async def _store(self) -> Check:
        try:
            stores = self.runtime.stores
        except ServiceError as error:
            return Check(name="store", status="failed", detail=error.detail)
        problem = await stores.problem()
        self.runtime.metrics.dependency_up.labels(stores.backend).set(problem is None)
        if problem is not None:
            return Check(name=stores.backend, status="degraded", detail=problem)
        return Check(name=stores.backend, status="ok")
