"""Files that take long to make, kept in a folder: exported, quantised and compiled towers. Each carries the digest of
its content in its name, so that one rename makes it appear whole, and a damaged one is noticed and made again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

KEPT = 12
"""Files beyond so many go, those first that were not asked for the longest."""

_BLOCK = 1 << 20


class Artefacts:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, stem: str, suffix: str, make: Callable[[Path], None]) -> Path:
        """The file of that stem, from the folder or made by `make`, which writes it to the path it is given. `stem`
        names everything that the content depends on. Raises what `make` raises, and `OSError`."""
        found = self._whole(stem, suffix)
        if found is None:
            found = self._made(stem, suffix, make)
            self._tidy(found)
        found.touch()
        return found

    def has(self, stem: str, suffix: str) -> bool:
        """Whether there is a file; its content is not looked at."""
        return any(self.folder.glob(f"{stem}.*{suffix}"))

    def _whole(self, stem: str, suffix: str) -> Path | None:
        for path in sorted(self.folder.glob(f"{stem}.*{suffix}")):
            if path.name == f"{stem}.{digest_of(path)}{suffix}":
                return path
            path.unlink(missing_ok=True)
        return None

    def _made(self, stem: str, suffix: str, make: Callable[[Path], None]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"partial-{os.getpid()}-{stem}{suffix}"
        try:
            make(partial)
            path = self.folder / f"{stem}.{digest_of(partial)}{suffix}"
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            return partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _tidy(self, newest: Path) -> None:
        """Also what a process that was killed left half made."""
        files = [path for path in self.folder.iterdir() if path.suffix != ".json" and path != newest]
        files.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[KEPT - 1 :]:
            path.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:32]
