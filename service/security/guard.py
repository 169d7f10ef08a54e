"""Pure ASGI middleware: nobody gets past without the right key. Also tells callers their quota, and writes the audit
log: who asked for what, and what became of it. Neither keys nor bodies are ever logged."""

from __future__ import annotations

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Forbidden, ServiceError
from service.http.problems import problem_response, refusal_reason
from service.security.callers import LOCAL, UNKNOWN, Caller, current_caller
from service.security.keyring import Keyring
from service.security.rates import rate_headers
from service.security.scopes import READ, needed_scopes
from service.security.sites import check_site
from service.telemetry.metrics import Metrics

_log = logging.getLogger("selftpt.audit")

REFUSED = {401, 403, 429}
UNTOLD = {"/v1/classify"}
"""Changes nothing, so that only its refusals are audited; the access log has every request."""


class GuardMiddleware:
    """Without a `keyring` everybody is the same local caller, and only requests that a foreign web page made a browser
    send are refused."""

    def __init__(
        self, app: ASGIApp, *, keyring: Keyring | None, metrics: Metrics, hosts: frozenset[str], origins: frozenset[str]
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._metrics = metrics
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(send, UNKNOWN)
        state = scope.setdefault("state", {})
        try:
            self._admit(scope, exchange)
        except ServiceError as error:
            state["caller"] = exchange.caller
            self._metrics.refused.labels(refusal_reason(error) or error.slug).inc()
            await problem_response(error)(scope, receive, exchange.send)
        else:
            state["caller"] = exchange.caller
            token = current_caller.set(exchange.caller)
            try:
                await self._app(scope, receive, exchange.send)
            finally:
                current_caller.reset(token)
        finally:
            _audit(scope, exchange, known=self._keyring is not None)

    def _admit(self, scope: Scope, exchange: _Exchange) -> None:
        """Raises `Unauthorized` or `Forbidden`; the caller is known as far as possible then."""
        headers = Headers(scope=scope)
        if self._keyring is None:
            check_site(scope, headers, hosts=self._hosts, origins=self._origins)
            exchange.caller = LOCAL
            return
        scopes = needed_scopes(scope["method"], scope["path"])
        given = headers.get("authorization")
        if scopes is None and not given:
            return
        caller = exchange.caller = self._keyring.caller(given)
        if scopes is not None and not any(caller.may(one) for one in scopes):
            named = " or ".join(sorted(scopes))
            raise Forbidden(f"this API key lacks the scope {named}", scope=" ".join(sorted(scopes)))


class _Exchange:
    def __init__(self, send: Send, caller: Caller) -> None:
        self._send = send
        self.caller = caller
        self.status = 499

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in rate_headers(list(self.caller.meters.values())).items():
                headers[name] = value
        await self._send(message)


def _audit(scope: Scope, exchange: _Exchange, *, known: bool) -> None:
    """`known`: callers have names, which is when reading refused things and changing things are worth a line."""
    path, status = scope["path"], exchange.status
    changes = scope["method"] not in READ and path not in UNTOLD
    if not changes and not (known and status in REFUSED):
        return
    client = scope.get("client")
    _log.log(
        logging.WARNING if status in REFUSED else logging.INFO,
        "%s %s",
        scope["method"],
        path,
        extra={
            "key": exchange.caller.id,
            "tenant": exchange.caller.tenant,
            "status": status,
            "client": client[0] if client else None,
        },
    )
