"""Without keys: keeps web pages of other sites from using a browser as their way in to a service on this machine."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from service.errors import Forbidden

SAFE = {"GET", "HEAD", "OPTIONS"}
FOREIGN = {"cross-site", "same-site"}


def check_site(scope: Scope, headers: Headers, *, hosts: frozenset[str], origins: frozenset[str]) -> None:
    """Raises `Forbidden` for a request that another site's page made a browser send (it would change something), and
    for one that came in on loopback under a foreign name (a name made to point to 127.0.0.1 lets a page read answers).

    `hosts` are further names of this service, `origins` the sites that may use it.
    """
    named = headers.get("host", "")
    if _on_loopback(scope) and not _is_loopback_name(host_of(named)) and host_of(named) not in hosts:
        raise Forbidden(
            f"this service listens on loopback only and does not answer under the name {host_of(named)[:100]!r}; "
            "SELFTPT_ALLOWED_HOSTS lists names that it should"
        )
    origin = headers.get("origin")
    if scope["method"] in SAFE or origin is None or origin in origins or "*" in origins:
        return
    fetched = headers.get("sec-fetch-site")
    if fetched in FOREIGN or (fetched is None and urlsplit(origin).netloc.lower() != named.lower()):
        raise Forbidden("a page of another site asked for this; SELFTPT_CORS_ORIGINS lists the sites that may")


def host_of(netloc: str) -> str:
    """Without the port and the brackets of an IPv6 address."""
    name = netloc.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if name.count(":") == 1 else name


@lru_cache(maxsize=64)  # asked twice in each request, about the same few names
def is_loopback(address: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_loopback_name(name: str) -> bool:
    return not name or name.endswith(".localhost") or is_loopback(name)


def _on_loopback(scope: Scope) -> bool:
    server = scope.get("server")
    return server is not None and is_loopback(str(server[0])) and server[0] != "localhost"
