"""The error tree of the service. Each class knows its HTTP status; `service/http/problems.py` is what speaks HTTP.

ServiceError
├── BadRequest 400           the request cannot be read as what it says it is
├── Unauthorized 401         no valid API key
├── Forbidden 403            a valid key without the scope, or a request that another site made a browser send
├── NotFound 404             no such route, label set, or problem type
├── MethodNotAllowed 405
├── RequestTimeout 408       the body came too slowly
├── Conflict 409             the request contradicts what is stored
│   └── ClosedSet            the method cannot take classes that it was not fitted to
├── LimitExceeded 413        too large; names the limit, its value and the actual value
├── UnsupportedType 415      a media type or image format that is not served
├── Unprocessable 422        well formed, but makes no sense; names the field
│   └── ImageError           an image that cannot be decoded
├── Overloaded 429           too much is waiting; says when to come back
│   └── RateExceeded         more than the API key's quota; names the quota
├── ClientGone 499           the caller hung up; nobody reads the answer
├── InternalError 500        our fault
│   └── ComputeError         the model gave no usable numbers
├── Unavailable 503
│   ├── NotReady             still loading or warming up
│   ├── ShuttingDown
│   ├── DeviceDead           the device thread ended
│   ├── DeviceFull           too little memory, even for one image
│   └── StoreError           a store could not say (this is never "not there")
└── DeadlineExceeded 504     not done within the time allowed
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar


class ServiceError(Exception):
    """`extensions` become members of the problem document; None values are left out."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", **extensions: object) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extensions = {key: value for key, value in extensions.items() if value is not None}
        self.headers: dict[str, str] = {}


class BadRequest(ServiceError):
    status = 400
    slug = "malformed-request"
    title = "Malformed request"


class Unauthorized(ServiceError):
    """`invalid`: a key was given, and it is not valid (RFC 6750)."""

    status = 401
    slug = "unauthorized"
    title = "An API key is needed"

    def __init__(self, detail: str = "", *, invalid: bool = False) -> None:
        super().__init__(detail)
        self.headers["WWW-Authenticate"] = 'Bearer realm="selftpt"' + (', error="invalid_token"' if invalid else "")


class Forbidden(ServiceError):
    """`scope` is what the key lacks, if that is the reason."""

    status = 403
    slug = "forbidden"
    title = "Not allowed"

    def __init__(self, detail: str = "", *, scope: str | None = None) -> None:
        super().__init__(detail, scope=scope)
        if scope is not None:
            challenge = f'Bearer realm="selftpt", error="insufficient_scope", scope="{scope}"'
            self.headers["WWW-Authenticate"] = challenge


class NotFound(ServiceError):
    status = 404
    slug = "not-found"
    title = "Not found"


class MethodNotAllowed(ServiceError):
    status = 405
    slug = "method-not-allowed"
    title = "Method not allowed"


class RequestTimeout(ServiceError):
    status = 408
    slug = "request-timeout"
    title = "The request body came too slowly"


class Conflict(ServiceError):
    status = 409
    slug = "conflict"
    title = "Conflict"


class ClosedSet(Conflict):
    slug = "closed-set-adapter"
    title = "The method serves only the classes it was fitted to"


class LimitExceeded(ServiceError):
    """`limit` is the name under which GET /v1/limits lists it."""

    status = 413
    slug = "limit-exceeded"
    title = "Limit exceeded"

    def __init__(self, limit: str, allowed: float, *, actual: float | None = None, field: str | None = None) -> None:
        said = "" if actual is None else f", {actual:g} given" if isinstance(actual, float) else f", {actual} given"
        super().__init__(f"{limit} is {allowed}{said}", limit=limit, allowed=allowed, actual=actual, field=field)


class UnsupportedType(ServiceError):
    status = 415
    slug = "unsupported-type"
    title = "Unsupported type"


class Unprocessable(ServiceError):
    status = 422
    slug = "unprocessable"
    title = "Unprocessable request"


class OverBudget(Unprocessable):
    slug = "over-budget"
    title = "More work than this deployment may spend"


class ImageError(Unprocessable):
    slug = "undecodable-image"
    title = "Undecodable image"


class Overloaded(ServiceError):
    """`retry_after` in seconds, an estimate of when the present queue will have been served."""

    status = 429
    slug = "overloaded"
    title = "Too much is waiting"

    def __init__(
        self, detail: str = "", *, retry_after: float = 1.0, reason: str = "queue", **extensions: object
    ) -> None:
        seconds = min(max(1, math.ceil(retry_after)), 600)
        super().__init__(detail, retry_after=seconds, **extensions)
        self.headers["Retry-After"] = str(seconds)
        self.reason = reason


class RateExceeded(Overloaded):
    """`limit` and `allowed` name the quota of the key."""

    slug = "rate-exceeded"
    title = "More than the quota of this API key"


class ClientGone(ServiceError):
    status = 499
    slug = "client-gone"
    title = "The caller hung up"


class InternalError(ServiceError):
    pass


class ComputeError(InternalError):
    slug = "compute-error"
    title = "The model gave no usable numbers"


class Unavailable(ServiceError):
    status = 503
    slug = "unavailable"
    title = "Service unavailable"

    def __init__(self, detail: str = "", **extensions: object) -> None:
        super().__init__(detail, **extensions)
        self.headers["Retry-After"] = "2"


class NotReady(Unavailable):
    slug = "not-ready"
    title = "Not ready yet"


class ShuttingDown(Unavailable):
    slug = "shutting-down"
    title = "The service is shutting down"


class DeviceDead(Unavailable):
    slug = "device-dead"
    title = "The device thread has ended"


class DeviceFull(Unavailable):
    slug = "device-full"
    title = "The device has too little memory"


class StoreError(Unavailable):
    slug = "store-unavailable"
    title = "A store could not be reached"


class DeadlineExceeded(ServiceError):
    status = 504
    slug = "deadline-exceeded"
    title = "Not done within the time allowed"


def error_types(root: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    """Every class of the tree, depth first."""
    yield root
    for child in root.__subclasses__():
        yield from error_types(child)
