"""POST /v1/label-sets/{label_set}/evaluate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from adapters.base import LabelSet
from adapters.errors import SupportError
from service.core import Core
from service.errors import Conflict, LimitExceeded, Unprocessable
from service.evaluation import Labelled
from service.http.connection import while_connected
from service.http.deps import CoreDep, RuntimeDep, WaitDep
from service.http.prefer import applied
from service.http.problems import problem_answers
from service.images.archives import MAGIC, ArchiveLimits, read_archive
from service.labels.records import Record
from service.routes.bodies import media_type
from service.routes.uploads import FORM, class_row, read_form, rows_by_name
from service.schemas import EvaluationAnswer, EvaluationSource
from service.settings import Settings

router = APIRouter()

ZIP_TYPES = {"application/zip", "application/x-zip-compressed"}
UNNAMED_FIELDS = {"images", "image"}
"""Fields that name no class: the folder in the file's name does."""

_BINARY = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {"images": {"type": "array", "items": _BINARY}, "archive": _BINARY},
                    "additionalProperties": {"type": "array", "items": _BINARY},
                }
            },
            "application/zip": {"schema": _BINARY},
        },
    }
}

Given = tuple[str, str, bytes]
"""Class as written, file name, bytes."""


@router.post(
    "/v1/label-sets/{label_set}/evaluate",
    operation_id="evaluate_label_set",
    responses={
        200: {"model": EvaluationAnswer, "description": "The served class state beside plain zero-shot."},
        **problem_answers(400, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504),
    },
    openapi_extra=BODY,
)
async def evaluate(
    label_set: str,
    request: Request,
    runtime: RuntimeDep,
    core: CoreDep,
    wait: WaitDep,
    *,
    adapter: Annotated[str | None, Query()] = None,
    source: Annotated[EvaluationSource, Query()] = "upload",
) -> Response:
    record = await core.label_sets.find(label_set)
    with runtime.evaluations:
        if source == "support":
            images = await support_images(core, record)
        else:
            images = labelled(await given_images(request, runtime.settings), record.labels)
        plan = core.label_sets.plan(record) if adapter is None else await core.fits.trial(record, adapter)
        answer = await while_connected(request, core.evaluator.evaluate(plan, images, wait=wait))
    return JSONResponse(answer, headers=applied(wait))


async def given_images(request: Request, settings: Settings) -> list[Given]:
    if media_type(request) in ZIP_TYPES:
        return await unpacked(await request.body(), settings)
    files, fields = await read_form(request, limit="max_evaluation_images", max_files=settings.max_evaluation_images)
    if fields:
        raise Unprocessable(f"{min(fields)}: only files are expected", field=min(fields))
    given: list[Given] = []
    for file in files:
        if file.data.startswith(MAGIC):
            given += await unpacked(file.data, settings)
        elif file.field in UNNAMED_FIELDS:
            given.append((PurePosixPath(file.name.replace("\\", "/")).parent.name, file.name, file.data))
        else:
            given.append((file.field, file.name, file.data))
    if len(given) > settings.max_evaluation_images:
        raise LimitExceeded("max_evaluation_images", settings.max_evaluation_images, actual=len(given), field="images")
    return given


async def support_images(core: Core, record: Record) -> list[Labelled]:
    """Those that the label set has now; the file name is the class and the beginning of the digest."""
    shelf = await core.label_sets.shelves.all(record.id)
    names = record.labels.names
    try:
        return [
            Labelled(await core.label_sets.shelves.read(record.id, row, one), row, f"{names[row]}/{one.digest[:12]}")
            for row in sorted(shelf)
            for one in shelf[row]
        ]
    except SupportError as error:
        raise Conflict("the support images were changed meanwhile; ask again", label_set=record.id) from error


async def unpacked(data: bytes, settings: Settings) -> list[Given]:
    limits = ArchiveLimits(
        settings.max_evaluation_images,
        settings.max_archive_bytes,
        settings.max_archive_ratio,
        settings.max_image_bytes,
    )
    entries = await asyncio.to_thread(read_archive, data, limits)
    return [(entry.folder, entry.path, entry.data) for entry in entries]


def labelled(given: Iterable[Given], labels: LabelSet) -> list[Labelled]:
    """Raises `Unprocessable` naming the classes that the label set does not have."""
    rows = rows_by_name(labels)
    placed = [(class_row(rows, name), name, filename, data) for name, filename, data in given]
    unknown = sorted({name or filename for row, name, filename, _ in placed if row is None})
    if unknown:
        raise Unprocessable(
            f"the label set has no class {unknown[0]!r}: name the field, or the folder in the file name, after a class",
            field="images",
            unknown=unknown[:20],
        )
    return [Labelled(data, row, filename) for row, _, filename, data in placed if row is not None]
