"""Pure ASGI middleware: a classify request that cannot be served now is refused by its head alone, before its body is
read and before any route is looked for."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.compute.admission import Admission
from service.compute.backlog import Backlog
from service.compute.work_queue import Asker
from service.errors import Overloaded
from service.http.prefer import preferred_wait
from service.http.problems import problem_response
from service.security.callers import current_caller
from service.telemetry.metrics import Metrics

CLASSIFY = "/v1/classify"
FOREIGN = ("/models/", "/v2/models/")
"""How the paths of other protocols begin."""

TIMEOUT_HEADER = "x-request-timeout-ms"


class EntryMiddleware:
    """Stands behind the guard, since places are counted by caller. Takes no place itself: the route does."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        admission: Admission,
        backlog: Backlog,
        metrics: Metrics,
        timeout: float,
        longest_wait: float,
    ) -> None:
        """`timeout`: seconds within which an answer is wanted where a request does not say. `longest_wait`: see
        `preferred_wait`."""
        self._app = app
        self._admission = admission
        self._backlog = backlog
        self._metrics = metrics
        self._timeout = timeout
        self._longest_wait = longest_wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _classifies(scope):
            await self._app(scope, receive, send)
            return
        try:
            self._check(Headers(scope=scope))
        except Overloaded as error:
            self._metrics.refused.labels(error.reason).inc()
            if scope["path"] != CLASSIFY:  # where clients of those protocols look for the reason
                error.extensions["error"] = error.detail
            await problem_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        self._admission.check()
        self._backlog.check(1, Asker(current_caller.get().id, time.perf_counter() + self._allowed(headers)))

    def _allowed(self, headers: Headers) -> float:
        """Seconds. What cannot be read as a number is left to the route, which says so."""
        allowed = self._timeout + preferred_wait(headers.get("prefer"), longest=self._longest_wait)
        said = headers.get(TIMEOUT_HEADER, "")
        return min(int(said) / 1000, allowed) if said.isdecimal() and len(said) < 10 else allowed


def _classifies(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path: str = scope["path"]
    return path == CLASSIFY or path.startswith(FOREIGN)
