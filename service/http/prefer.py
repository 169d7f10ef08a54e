"""The `wait` preference of RFC 7240."""

from __future__ import annotations

import re

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?", re.IGNORECASE)


def preferred_wait(header: str | None, *, longest: float) -> int:
    """Whole seconds that the caller is ready to wait, at most `longest`; 0 when nothing is said."""
    found = WAIT.search(header or "")
    return min(int(found[1]), int(longest)) if found else 0


def applied(wait: int) -> dict[str, str]:
    """The header that tells that the preference was honoured, and with which value."""
    return {"Preference-Applied": f"wait={wait}"} if wait else {}
