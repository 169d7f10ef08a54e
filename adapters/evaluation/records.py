"""What one measurement leaves behind, and the file that lets a stopped run go on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

JOURNAL = "measurements.jsonl"


@dataclass(frozen=True, slots=True)
class Measured:
    """One method on one image set with one seed. Percentages for top-1 and ECE.

    source: the set that the method was fitted on; part: all, base or new classes.
    backbone, images_digest, content: what it was measured with and on, and digest of the adapter and what it learnt
    from, so that a result is not taken for one of other settings.
    nbytes, prompt_bytes: of the whole stored state, and of the learnt prompts in it (packed where they are packed).
    bins: per confidence bin the number of images, the sum of confidences, and the number of hits.
    reused: whether features of support images may have been there before, so that `seconds` leaves them out.
    skipped: why there is no figure, or "".
    """

    protocol: str
    set_name: str
    source: str
    part: str
    method: str
    shots: int
    seed: int
    backbone: str
    images_digest: str
    content: str
    top1: float = 0.0
    ece: float = 0.0
    images: int = 0
    classes: int = 0
    seconds: float = 0.0
    nbytes: int = 0
    prompt_bytes: int = 0
    bins: tuple[tuple[float, ...], ...] = ()
    reused: bool = False
    skipped: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes it the same measurement."""
        return tuple(getattr(self, entry.name) for entry in fields(self)[: len(self.place) + 3])

    @property
    def place(self) -> tuple[Any, ...]:
        """Its place in a table, whatever it was measured with."""
        return (self.protocol, self.set_name, self.source, self.part, self.method, self.shots, self.seed)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one method asks of a fresh process: seconds and MiB (peak growth of resident memory) of one fit, bytes of
    the stored state, milliseconds and MiB of one image. `cuda` figures are of allocated device memory, 0 without."""

    method: str
    set_name: str
    classes: int
    content: str
    fit_seconds: float = 0.0
    nbytes: int = 0
    fit_mib: float = 0.0
    image_ms: float = 0.0
    image_mib: float = 0.0
    cuda_fit_mib: float = 0.0
    cuda_image_mib: float = 0.0
    skipped: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.method, self.set_name, self.classes, self.content)


class Journal:
    """Measurements as lines of JSON, appended one by one; None for the folder keeps them in memory alone. Several
    processes may write to one file."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / JOURNAL if folder else None
        self._kept: list[Measured | Cost] = []
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)

    def add(self, entry: Measured | Cost) -> None:
        """Durable on return."""
        if self._file is None:
            self._kept.append(entry)
            return
        line = json.dumps({"kind": type(entry).__name__, **asdict(entry)}) + "\n"
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def measured(self) -> list[Measured]:
        return [entry for entry in self._entries() if isinstance(entry, Measured)]

    def costs(self) -> list[Cost]:
        return [entry for entry in self._entries() if isinstance(entry, Cost)]

    def _entries(self) -> list[Measured | Cost]:
        if self._file is None:
            return list(self._kept)
        if not self._file.is_file():
            return []
        lines = self._file.read_text(encoding="utf-8").splitlines()
        found = [entry for entry in map(_entry, lines) if entry is not None]
        return list({(type(entry), entry.key): entry for entry in found}.values())


def _entry(line: str) -> Measured | Cost | None:
    """None for a line that was cut off or is of another version."""
    try:
        plain = json.loads(line)
        kind = plain.pop("kind")
        if kind == "Cost":
            return Cost(**plain)
        plain["bins"] = tuple(tuple(row) for row in plain["bins"])
        return Measured(**plain)
    except (ValueError, KeyError, TypeError):
        return None


def current(entries: Iterable[Measured], protocol: str, backbone: str) -> list[Measured]:
    """Of a journal that several runs wrote to, what may stand in one table: of this protocol and backbone, the latest
    of each place, and per set only what was measured on the same images as its latest entry."""
    mine = [e for e in entries if e.protocol == protocol and e.backbone == backbone]
    images = {e.set_name: e.images_digest for e in mine}
    return list({e.place: e for e in mine if e.images_digest == images[e.set_name]}.values())


def by(entries: Iterable[Measured], fact: Callable[[Measured], Any]) -> dict[Any, list[Measured]]:
    """Groups in order of first appearance."""
    groups: dict[Any, list[Measured]] = {}
    for entry in entries:
        groups.setdefault(fact(entry), []).append(entry)
    return groups
