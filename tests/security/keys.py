"""Files of API keys for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.security.key_file import read_keys, write_keys
from service.security.keys import Scope, new_key


def add_key(path: Path, *scopes: Scope, **facts: Any) -> dict[str, str]:
    """The header that the new key is sent in."""
    known = read_keys(path) if path.exists() else {}
    key, token = new_key(frozenset(scopes), **facts)
    write_keys(path, [*known.values(), key])
    return {"Authorization": f"Bearer {token}"}


def id_of(header: dict[str, str]) -> str:
    return header["Authorization"].split("_")[1]
