"""Pure ASGI middleware: request id, access log, request metrics, and the last resort for unexpected errors."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError, ShuttingDown
from service.http.problems import problem_response
from service.security.callers import caller_facts
from service.telemetry.logging import request_id, trace_id
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import RequestTrace, Tracing, Untraced

_log = logging.getLogger("selftpt.access")

GIVEN_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
QUIET = {"/livez", "/readyz", "/metrics"}
"""Asked every few seconds by machines: logged at debug level."""

UNMATCHED = "unmatched"


class AccessMiddleware:
    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing or Untraced()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        current = given if GIVEN_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        token = request_id.set(current)
        trace = self._tracing.begin(scope["method"], headers.get("traceparent", ""), headers.get("tracestate", ""))
        trace_token = trace_id.set(trace.trace_id)
        exchange = _Exchange(send, current, trace)
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError:  # the server's patience with requests in flight ended; they are told so
            if exchange.status is not None:
                raise
            await problem_response(ShuttingDown())(scope, receive, exchange.send)
        except Exception as error:  # loop edge: nothing may leave a caller without an answer
            _log.exception("unexpected error", extra={"path": scope["path"]})
            if exchange.status is None:
                answer = problem_response(InternalError(f"unexpected {type(error).__name__}; the log has the rest"))
                await answer(scope, receive, exchange.send)
        finally:
            self._metrics.in_flight.dec()
            self._record(scope, exchange)
            trace_id.reset(trace_token)
            request_id.reset(token)

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.began
        route = route_of(scope)
        status = str(exchange.status or 499)
        caller = caller_facts(scope.get("state", {}))
        exchange.trace.end(route, int(status), caller)
        exemplar = {"trace_id": exchange.trace.trace_id} if exchange.trace.answer and exchange.trace.trace_id else None
        self._metrics.request_seconds.labels(route, status).observe(seconds, exemplar)
        _log.log(
            logging.DEBUG if scope["path"] in QUIET else logging.INFO,
            "%s %s",
            scope["method"],
            scope["path"],
            extra={"status": int(status), "milliseconds": round(1000 * seconds, 2), "route": route, **caller},
        )


class _Exchange:
    """Adds the request id to the answer, and where it was traced; remembers its status."""

    def __init__(self, send: Send, current: str, trace: RequestTrace) -> None:
        self._send = send
        self._id = current
        self.trace = trace
        self.began = time.perf_counter()
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._id
            if self.trace.answer:
                headers["traceparent"] = self.trace.answer
        await self._send(message)


def route_of(scope: Scope) -> str:
    """The path template of the route that answered, never the path itself: label values must stay few."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else UNMATCHED
