"""Image files below folders, one after the other in an order that stays the same, however many there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import click

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}

Place = tuple[int, tuple[str, ...]]
"""Number of the argument, and the path below it: what images are ordered by."""


@dataclass(frozen=True, slots=True)
class Found:
    place: Place
    path: Path


def walk(patterns: Sequence[str]) -> Iterator[Found]:
    """Files, folders and globs, in the order of the arguments. Holds the names of one folder at a time. Raises
    `UsageError` for an argument that is nothing."""
    for number, pattern in enumerate(patterns):
        root = Path(pattern)
        if root.is_dir():
            yield from (Found((number, parts), root.joinpath(*parts)) for parts in below(root, ()))
            continue
        matches = [root] if root.is_file() else sorted(map(Path, glob(pattern, recursive=True)))
        if not matches:
            raise click.UsageError(f"no image found for {pattern!r}")
        yield from (Found((number, one.parts), one) for one in sorted(matches, key=lambda one: one.parts))


def below(root: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Depth first, names in order. Links to folders are not followed, so that no link makes an endless tree; nor are
    folders entered whose name starts with a dot."""
    with os.scandir(root.joinpath(*parts)) as found:
        entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    for name, is_folder in entries:
        if is_folder and not name.startswith("."):
            yield from below(root, (*parts, name))
        elif not is_folder and os.path.splitext(name)[1].lower() in SUFFIXES:
            yield (*parts, name)


def without(walked: Iterator[Found], done: Iterator[Place]) -> Iterator[Found]:
    """Those that are not done yet; both come in order. Files that are gone by now do not matter."""
    current = next(done, None)
    for one in walked:
        while current is not None and current < one.place:
            current = next(done, None)
        if current != one.place:
            yield one
