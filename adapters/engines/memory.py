"""Decisions between starts: one small file per model, machine and settings. The first decision stays, so that the same
process started again, or a second one beside it, answers with the same scores."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from adapters.engines.base import Decision, Finding, Kind


class Memory:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, key: str) -> Decision | None:
        """None when there is none, or it cannot be read."""
        try:
            data = json.loads(self._path(key).read_text(encoding="utf-8"))
            return replace(decoded(data), source="remembered")
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, key: str, decision: Decision) -> Decision:
        """The decision that holds from now on: another process may have been first. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"partial-{os.getpid()}-{key}.json"
        partial.write_text(json.dumps(asdict(decision)), encoding="utf-8")
        try:
            os.link(partial, self._path(key))  # unlike a rename, this fails when there is one already
        except FileExistsError:
            first = self.recall(key)
            if first is not None:
                return first
            partial.replace(self._path(key))
        finally:
            partial.unlink(missing_ok=True)
        return decision

    def forget(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"choice-{key}.json"


def decoded(data: dict[str, Any]) -> Decision:
    """Raises `TypeError` or `KeyError` for other data."""
    findings = tuple(Finding(**{**found, "kind": Kind(**found["kind"])}) for found in data["findings"])
    return Decision(**{**data, "findings": findings})
