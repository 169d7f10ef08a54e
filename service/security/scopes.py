"""Which scope a request needs, by method and path. What no rule names needs `admin`: a new route is closed until it is
listed here."""

from __future__ import annotations

import re

from service.security.keys import SCOPES, Scope

OPEN = re.compile(
    r"/|/docs|/docs\.css|/openapi\.json|/favicon\.svg|/livez|/readyz|/problems/[^/]*|/v2/health/(live|ready)"
    r"|/console/[\w.-]+|/dashboard|/dashboard/[\w-]+\.(css|js|svg)"
)
"""Answered without a key: probes, static pages, and what the contract and its problem types mean."""

READ = {"GET", "HEAD"}
ANY = frozenset(SCOPES)
ADMIN: frozenset[Scope] = frozenset({"admin"})

Rule = tuple[re.Pattern[str], bool | None, frozenset[Scope]]

RULES: tuple[Rule, ...] = (
    (re.compile(r"/metrics|/v1/stats"), True, frozenset({"metrics"})),
    (re.compile(r"/v1/(adapters|models|limits)"), True, ANY),
    (re.compile(r"/v1/classify"), False, frozenset({"classify"})),
    (re.compile(r"/v1/label-sets/[^/]+/evaluate"), False, frozenset({"classify", "label-sets"})),
    (re.compile(r"/v1/label-sets/[^/]+/support-images/.*"), True, frozenset({"label-sets"})),
    (re.compile(r"/v1/label-sets(/.*)?"), True, frozenset({"classify", "label-sets"})),
    (re.compile(r"/v1/label-sets(/.*)?"), False, frozenset({"label-sets"})),
    (re.compile(r"/(models|v2)(/.*)?"), None, frozenset({"classify"})),
)
"""Path, whether it only reads (None: either), and the scopes of which one is enough."""


def needed_scopes(method: str, path: str) -> frozenset[Scope] | None:
    """None: no key is needed. `admin` is always enough."""
    reads = method in READ
    if reads and OPEN.fullmatch(path):
        return None
    for pattern, reading, scopes in RULES:
        if reading in (None, reads) and pattern.fullmatch(path):
            return scopes
    return ADMIN
