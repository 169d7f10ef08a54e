"""Errors as RFC 9457 problem documents: the only place that turns them into HTTP answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from service.errors import (
    BadRequest,
    LimitExceeded,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    ServiceError,
    Unprocessable,
    UnsupportedType,
    error_types,
)
from service.telemetry.logging import request_id

MEDIA_TYPE = "application/problem+json"
TYPE_PATH = "/problems/"
NO_FIELDS = {"body", "query", "path", "header", "str", "ClassEntry"}
"""Parts of a validation error's place that say where it came from or which form was tried, not which field it is."""

JSON_DEPTH = 200
"""How deep arrays and objects may stand in each other: the parser's own bound."""

PLAIN_ERRORS: Mapping[int, type[ServiceError]] = {
    400: BadRequest,
    404: NotFound,
    405: MethodNotAllowed,
    415: UnsupportedType,
    422: Unprocessable,
}


def problem_document(error: ServiceError) -> dict[str, object]:
    document: dict[str, object] = {
        "type": TYPE_PATH + error.slug,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        **error.extensions,
    }
    current = request_id.get()
    return document if current is None else {**document, "request_id": current}


def problem_response(error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(problem_document(error), ensure_ascii=False, default=str).encode("utf-8", "replace")
    return Response(body, error.status, {**error.headers, **(headers or {})}, media_type=MEDIA_TYPE)


def validation_problem(errors: Sequence[Any]) -> ServiceError:
    """From pydantic's list: text that is not JSON is malformed, everything else makes no sense as given."""
    first = errors[0]
    if first["type"] == "json_invalid" and "recursion" in str(first.get("ctx", {}).get("error", "")):
        return LimitExceeded("max_json_depth", JSON_DEPTH, field="body")
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    listed = [{"field": field_path(one["loc"]), "message": one["msg"]} for one in errors[:20]]
    return Unprocessable(f"{listed[0]['field']}: {listed[0]['message']}", field=listed[0]["field"], errors=listed)


def field_path(place: Sequence[str | int]) -> str:
    """`("body", "classes", 3, "name")` as `classes[3].name`."""
    parts = [part for part in place if part not in NO_FIELDS]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.lstrip(".") or "body"


def refusal_reason(error: ServiceError) -> str | None:
    """Why a request was refused for being too much, for the metric; None for other errors."""
    if isinstance(error, LimitExceeded):
        return str(error.extensions["limit"])
    return error.reason if isinstance(error, Overloaded) else None


def problem_types() -> dict[str, dict[str, object]]:
    """What each `type` means, by its last part."""
    return {
        kind.slug: {"type": TYPE_PATH + kind.slug, "title": kind.title, "status": kind.status} for kind in error_types()
    }


def problem_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "A problem document.", "content": content} for status in statuses}


def allowed_methods(request: Request) -> list[str]:
    """Of all routes that share the path; the router itself names those of one."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE:
            found |= route.methods or set()
    return sorted(found)


def install_problems(app: FastAPI) -> None:
    async def on_service_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        reason = refusal_reason(error)
        if reason is not None:
            request.app.state.runtime.metrics.refused.labels(reason).inc()
        return problem_response(error)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(validation_problem(error.errors()))

    async def on_plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = PLAIN_ERRORS.get(error.status_code, BadRequest)
        said = f"{request.method} {request.url.path}: {error.detail}"
        headers = dict(error.headers or {})
        if error.status_code == MethodNotAllowed.status:
            headers["Allow"] = ", ".join(allowed_methods(request))
        return problem_response(kind(said), headers)

    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_plain)
