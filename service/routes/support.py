"""/v1/label-sets/{label_set}/support: the images that few-shot methods learn from."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from adapters.base import clean_text
from adapters.errors import SupportError
from service.core import Core
from service.errors import LimitExceeded, NotFound, ServiceError, Unprocessable
from service.http.deps import CoreDep, RuntimeDep
from service.http.problems import problem_answers
from service.images.formats import FORMATS, sniffed_type
from service.labels.support import SupportImage, support_digest
from service.routes.uploads import File, known_row, read_form
from service.schemas import SupportAnswer, SupportClass
from service.security.callers import pay_images

router = APIRouter(prefix="/v1/label-sets/{label_set}")

IMAGE_FIELDS = {"images", "image"}
SHORT_DIGEST = 12
BINARY = {"schema": {"type": "string", "format": "binary"}}

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": BINARY["schema"]},
                        "captions": {"type": "string"},
                    },
                }
            }
        },
    }
}


@router.put(
    "/support/{class_name:path}",
    operation_id="put_support",
    responses={
        200: {"model": SupportClass, "description": "The images of the class, durable."},
        **problem_answers(400, 404, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra=BODY,
)
async def put_support(
    label_set: str, class_name: str, request: Request, runtime: RuntimeDep, core: CoreDep
) -> Response:
    record = await core.label_sets.find(label_set)
    row = known_row(record.labels, class_name)
    limits = core.label_sets.shelves.limits
    with runtime.admission:
        files, fields = await read_form(request, limit="max_support_images", max_files=limits.max_support_images)
        check_fields(files, fields)
        captions = read_captions(fields.get("captions"), len(files), limits.max_caption_characters)
        pay_images(len(files))
        for place, file in enumerate(files):
            await check_image(core, file, place)
        images = [(file.data, caption) for file, caption in zip(files, captions, strict=True)]
        kept = await core.label_sets.shelves.put(record.id, row, images)
    if await core.label_sets.records.find(record.id) is None:
        await core.label_sets.shelves.drop(record.id)
        raise NotFound(f"the label set {label_set!r} was deleted meanwhile", label_set=label_set)
    await core.fits.tidy(record, row)
    return JSONResponse(shown_class(record.labels.names[row], kept))


@router.get(
    "/support",
    operation_id="get_support",
    responses={
        200: {"model": SupportAnswer, "description": "Every class that has images."},
        **problem_answers(404, 503),
    },
)
async def get_support(label_set: str, core: CoreDep) -> Response:
    record = await core.label_sets.find(label_set)
    shelf = await core.label_sets.shelves.all(record.id)
    names = record.labels.names
    counts = [len(shelf.get(row, ())) for row in range(len(names))]
    return JSONResponse(
        {
            "label_set": record.id,
            "digest": support_digest(shelf),
            "images": sum(counts),
            "fewest": min(counts),
            "classes": [shown_class(names[row], shelf[row]) for row in sorted(shelf)],
        }
    )


@router.delete(
    "/support/{class_name:path}", operation_id="delete_support", status_code=204, responses=problem_answers(404, 503)
)
async def delete_support(label_set: str, class_name: str, core: CoreDep) -> Response:
    record = await core.label_sets.find(label_set)
    row = known_row(record.labels, class_name)
    if not await core.label_sets.shelves.remove(record.id, row):
        raise NotFound(f"class {class_name!r} has no support images", label_set=label_set)
    return Response(status_code=204)


@router.get(
    "/support/{class_name:path}",
    operation_id="get_class_support",
    responses={
        200: {"model": SupportClass, "description": "The images of the class; it may have none."},
        **problem_answers(404, 503),
    },
)
async def get_class_support(label_set: str, class_name: str, core: CoreDep) -> Response:
    record = await core.label_sets.find(label_set)
    row = known_row(record.labels, class_name)
    shelf = await core.label_sets.shelves.all(record.id)
    return JSONResponse(shown_class(record.labels.names[row], shelf.get(row, ())))


@router.get(
    "/support-images/{digest}",
    operation_id="get_support_image",
    response_class=Response,
    responses={
        200: {"description": "The bytes as they were uploaded.", "content": dict.fromkeys(FORMATS.values(), BINARY)},
        **problem_answers(404, 503),
    },
)
async def get_support_image(label_set: str, digest: str, core: CoreDep) -> Response:
    """An attachment that no cache keeps: whoever deletes an image can rely on that it is gone."""
    record = await core.label_sets.find(label_set)
    shelves = core.label_sets.shelves
    places = [(row, one) for row, kept in (await shelves.all(record.id)).items() for one in kept]
    place = next(((row, one) for row, one in places if one.digest == digest), None)
    missing = f"the label set has no support image {digest!r}"
    if place is None:
        raise NotFound(missing, field="digest")
    try:
        data = await shelves.read(record.id, *place)
    except SupportError as error:  # deleted since it was listed
        raise NotFound(missing, field="digest") from error
    kind = sniffed_type(data) or "application/octet-stream"
    name = f"{digest[:SHORT_DIGEST]}.{kind.rpartition('/')[2].replace('jpeg', 'jpg')}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(data, headers=headers, media_type=kind)


def check_fields(files: list[File], fields: dict[str, str]) -> None:
    for name in [*(file.field for file in files if file.field not in IMAGE_FIELDS), *(fields.keys() - {"captions"})]:
        raise Unprocessable(f"{name}: there are the fields `images` and `captions`", field=name)
    if not files:
        raise Unprocessable("no image was given", field="images")


def read_captions(text: str | None, count: int, longest: int) -> list[str | None]:
    """One caption or null per image."""
    if not text:
        return [None] * count
    try:
        captions = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unprocessable(f"captions: not JSON: {error}", field="captions") from error
    if not isinstance(captions, list) or not all(one is None or isinstance(one, str) for one in captions):
        raise Unprocessable("captions: a JSON list of texts and nulls is expected", field="captions")
    if len(captions) != count:
        raise Unprocessable(f"{len(captions)} captions for {count} images", field="captions")
    for place, one in enumerate(captions):
        if one is not None and len(one) > longest:
            raise LimitExceeded("max_caption_characters", longest, actual=len(one), field=f"captions[{place}]")
    return [clean_text(one) or None if one is not None else None for one in captions]


async def check_image(core: Core, file: File, place: int) -> None:
    """Decodes it, so that no fit fails over it later. The problem names the file."""
    try:
        await core.decoder.pixels(file.data)
    except ServiceError as error:
        error.detail = f"{file.name or f'image {place}'}: {error.detail}"
        error.extensions |= {"field": f"images[{place}]", "filename": file.name}
        raise


def shown_class(name: str, images: list[SupportImage] | tuple[SupportImage, ...]) -> dict[str, Any]:
    listed = [{"digest": one.digest, "bytes": one.size, "caption": one.caption} for one in images]
    return {"label": name, "count": len(listed), "images": listed}
