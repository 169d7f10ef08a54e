"""Multipart bodies that carry files under several names, and the class that a path or a file name means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from adapters.base import LabelSet, clean_text
from service.errors import BadRequest, LimitExceeded, NotFound, UnsupportedType
from service.routes.bodies import MAX_FIELD_BYTES, media_type

FORM = "multipart/form-data"
MAX_FIELDS = 16


@dataclass(frozen=True, slots=True, eq=False)
class File:
    field: str
    name: str
    data: bytes


async def read_form(request: Request, *, limit: str, max_files: int) -> tuple[list[File], dict[str, str]]:
    """Files and fields. `limit` is the name of `max_files` in the problem document."""
    if media_type(request) != FORM:
        kind = media_type(request) or "(none given)"
        raise UnsupportedType(f"a body of type {kind} is not served here", accepted=[FORM])
    try:
        async with request.form(max_files=max_files, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            parts = form.multi_items()
            files = [
                File(field, part.filename or "", await part.read())
                for field, part in parts
                if isinstance(part, UploadFile)
            ]
            return files, {field: part for field, part in parts if isinstance(part, str)}
    except HTTPException as error:
        if error.detail.startswith("Too many files"):
            raise LimitExceeded(limit, max_files, field="images") from error
        raise BadRequest(f"the multipart body cannot be read: {error.detail}") from error


def rows_by_name(labels: LabelSet) -> Mapping[str, int]:
    """Class rows by the form in which names are compared."""
    return {entry.name.casefold(): row for row, entry in enumerate(labels.classes)}


def class_row(rows: Mapping[str, int], name: str) -> int | None:
    """Folder names often have underscores where class names have blanks."""
    plain = clean_text(name).casefold()
    return rows.get(plain, rows.get(clean_text(plain.replace("_", " "))))


def known_row(labels: LabelSet, name: str) -> int:
    """Raises `NotFound` unless the label set has a class of exactly this name, case aside."""
    row = rows_by_name(labels).get(clean_text(name).casefold())
    if row is None:
        raise NotFound(f"the label set has no class {name!r}", field="class_name")
    return row
