"""When a request is sent again, and after which pause. Sends nothing and sleeps nowhere."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx

REFUSED = frozenset({429, 503})
"""The service did not begin with the request, so that any request may be sent again."""

LOST = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""The connection broke off: whether the request was served is not known."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0


def again(outcome: httpx.Response | httpx.TransportError, *, repeatable: bool) -> bool:
    """`repeatable`: serving the request twice has the effect of serving it once. Time-outs are the caller's own
    limit, so they are never tried again."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in REFUSED
    return isinstance(outcome, httpx.ConnectError) or (repeatable and isinstance(outcome, LOST))


def pause(outcome: httpx.Response | httpx.TransportError, attempt: int) -> float:
    """Seconds before the next try: what the service asked for, else doubling from a quarter of a second."""
    asked = outcome.headers.get("Retry-After") if isinstance(outcome, httpx.Response) else None
    seconds = retry_after(asked) if asked else None
    return min(FIRST_PAUSE * 2**attempt if seconds is None else seconds, LONGEST_PAUSE)


def retry_after(text: str) -> float | None:
    """Seconds from now; the field holds a number of seconds or a date (RFC 9110, 10.2.3)."""
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
