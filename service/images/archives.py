"""A zip archive of class folders as labelled images. Nothing is written to disk; what looks like an attack is
refused."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from service.errors import BadRequest, LimitExceeded, Unprocessable

MAGIC = b"PK\x03\x04"
HIDDEN = ("__MACOSX", ".")
"""What archivers add by themselves."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    entries: int
    """Named max_evaluation_images to callers."""
    max_archive_bytes: int
    max_archive_ratio: float
    max_image_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One file of an archive and the folder right above it, which is its class."""

    path: str
    folder: str
    data: bytes


def read_archive(data: bytes, limits: ArchiveLimits) -> list[Entry]:
    """Raises `BadRequest` for what is no zip archive, `LimitExceeded` or `Unprocessable` for one that is too much."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = list(_files(archive, limits))
            return [Entry(info.filename, folder, _read(archive, info, limits)) for info, folder in infos]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise BadRequest(f"the zip archive cannot be read: {error}") from error


def _files(archive: zipfile.ZipFile, limits: ArchiveLimits) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """What the directory promises is checked before anything is unpacked."""
    count = total = 0
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        if info.is_dir() or any(part.startswith(HIDDEN) and part not in {".", ".."} for part in path.parts):
            continue
        count, total = count + 1, total + info.file_size
        _check(info, path, count, total, limits)
        yield info, path.parent.name


def _check(info: zipfile.ZipInfo, path: PurePosixPath, count: int, total: int, limits: ArchiveLimits) -> None:
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
        raise Unprocessable(f"{info.filename!r} is no path inside an archive", field="archive")
    if info.flag_bits & 1:
        raise Unprocessable(f"{info.filename!r} is encrypted", field="archive")
    if len(path.parts) < 2:
        raise Unprocessable(f"{info.filename!r} lies in no folder that would name its class", field="archive")
    if count > limits.entries:
        raise LimitExceeded("max_evaluation_images", limits.entries, field="archive")
    if total > limits.max_archive_bytes:
        raise LimitExceeded("max_archive_bytes", limits.max_archive_bytes, actual=total, field="archive")
    if info.file_size > limits.max_archive_ratio * max(info.compress_size, 1):
        raise LimitExceeded("max_archive_ratio", limits.max_archive_ratio, field="archive")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ArchiveLimits) -> bytes:
    """At most one byte more than an image may have; the decoder refuses that one."""
    with archive.open(info) as file:
        return file.read(limits.max_image_bytes + 1)
