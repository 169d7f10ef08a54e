"""What an unfinished batch has found so far: one JSON line per image, a file per run, in a folder beside the result.

Lines are written whole and in the order of the images, so that a run which was killed loses at most a line, and its
successor compares two ordered streams instead of holding names in memory.
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from typing_extensions import Self

from service.commands.walking import Place

Line = dict[str, Any]
ABOUT = "about.json"


class Journal:
    """`about` is what must be the same for a run to go on: labels, method, model. Raises `UsageError` otherwise."""

    def __init__(self, folder: Path, about: Mapping[str, object]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._check(dict(about))
        self._runs = sorted(folder.glob("*.jsonl"))
        for run in self._runs:
            cut_torn_line(run)
        self._file = (folder / f"{len(self._runs) + 1:06}.jsonl").open("x", encoding="ascii")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def add(self, lines: Sequence[Line]) -> None:
        """After this a kill loses none of them; a power cut may."""
        self._file.write("".join(json.dumps(line) + "\n" for line in lines))
        self._file.flush()

    def done(self) -> Iterator[Place]:
        """Places of the images that earlier runs were through with, in order."""
        return (place_of(line) for line in merged(self._runs))

    def lines(self) -> Iterator[Line]:
        """Of all runs, in the order of the images."""
        self.close()
        return merged(sorted(self.folder.glob("*.jsonl")))

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.folder)

    def _check(self, about: dict[str, object]) -> None:
        file = self.folder / ABOUT
        if not file.exists():
            file.write_text(json.dumps(about), encoding="utf-8")
            return
        before = json.loads(file.read_text(encoding="utf-8"))
        other = sorted(name for name in about.keys() | before.keys() if about.get(name) != before.get(name))
        if other:
            raise click.UsageError(
                f"{self.folder} holds an unfinished run with other {', '.join(other)}: "
                "finish it, remove the folder, or choose another --out"
            )


def cut_torn_line(run: Path) -> None:
    """A kill may leave the beginning of a line."""
    with run.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        while size > 0:
            step = min(size, 65536)
            file.seek(size - step)
            end = file.read(step).rfind(b"\n")
            if end >= 0:
                file.truncate(size - step + end + 1)
                return
            size -= step
        file.truncate(0)


def merged(runs: Sequence[Path]) -> Iterator[Line]:
    return heapq.merge(*(read(run) for run in runs), key=place_of)


def read(run: Path) -> Iterator[Line]:
    with run.open(encoding="ascii") as file:
        for text in file:
            line: Line = json.loads(text)
            yield line


def place_of(line: Line) -> Place:
    number, *parts = line["place"]
    return number, tuple(parts)
