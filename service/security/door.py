"""Puts the guards in front of the application: what other sites' pages may do, and keys."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.runtime import Runtime
from service.security.guard import GuardMiddleware
from service.settings import listed

METHODS = ("GET", "POST", "PUT", "DELETE")
SENT = (
    "Authorization",
    "Content-Type",
    "Inference-Header-Content-Length",
    "Prefer",
    "X-Request-Id",
    "X-Request-Timeout-Ms",
    "traceparent",
    "tracestate",
)
SHOWN = (
    "Allow",
    "Content-Disposition",
    "Inference-Header-Content-Length",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Adapted",
    "X-Request-Id",
    "X-Served-By",
    "traceparent",
)
"""Header fields that pages of other sites may send and read."""


def close_door(app: FastAPI, runtime: Runtime) -> None:
    """What is added last is passed first: a page of another site can read why it was refused."""
    settings = runtime.settings
    origins = listed(settings.cors_origins)
    app.add_middleware(
        GuardMiddleware,
        keyring=runtime.keyring,
        metrics=runtime.metrics,
        hosts=listed(settings.allowed_hosts),
        origins=origins,
    )
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_methods=METHODS,
            allow_headers=SENT,
            expose_headers=SHOWN,
            max_age=600,
        )
