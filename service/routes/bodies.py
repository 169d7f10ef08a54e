"""The three forms of a classify body (raw image, multipart, JSON), read into one `Call`."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from service.errors import BadRequest, LimitExceeded, Unprocessable, UnsupportedType
from service.http.problems import validation_problem
from service.images.formats import FORMATS
from service.images.inputs import Call, Upload, from_base64
from service.schemas import ClassifyOptions, ClassifyRequest

BODY_TYPES = (*FORMATS.values(), "application/octet-stream", "multipart/form-data", "application/json")
IMAGE_FIELDS = {"images", "image"}
"""The first is documented; the other is what one writes by hand for a single file."""

LISTS = {"labels", "templates"}
"""Form fields that may be repeated."""

LARGE_JSON = 1 << 19
"""Bytes from which base64 is unwrapped in a thread."""

MAX_FIELDS = 20_000
MAX_FIELD_BYTES = 1 << 20
Model = TypeVar("Model", bound=BaseModel)


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


async def read_call(request: Request, options: ClassifyOptions, *, max_images: int) -> Call:
    """`options` come from the query; members of the body go before them."""
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await _multipart(request, options, max_images)
    if kind == "application/json":
        return await _json(request, options, max_images)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return Call([Upload(await request.body())], options)
    raise UnsupportedType(f"a body of type {kind or '(none given)'} is not served", accepted=list(BODY_TYPES))


async def read_json(request: Request, model: type[Model]) -> Model:
    """A JSON body as `model`; the problem names the field at fault."""
    kind = media_type(request)
    if kind not in {"application/json", ""} and not kind.endswith("+json"):
        raise UnsupportedType(f"a body of type {kind} is not served here", accepted=["application/json"])
    return _validated(model, await request.body())


def split_labels(labels: list[str] | None) -> list[str] | None:
    """One text with commas is a list of names; repeated texts are taken as they are, commas and all."""
    if labels is None or len(labels) != 1 or "," not in labels[0]:
        return labels
    return [part.strip() for part in labels[0].split(",") if part.strip()]


async def _json(request: Request, options: ClassifyOptions, max_images: int) -> Call:
    def unwrap(content: bytes) -> Call:
        body = _validated(ClassifyRequest, content)
        _check_count(len(body.images), max_images)
        given = body.model_dump(include=body.model_fields_set - {"images"})
        return Call([from_base64(text) for text in body.images], _merged(options, given))

    content = await request.body()
    return await asyncio.to_thread(unwrap, content) if len(content) > LARGE_JSON else unwrap(content)


async def _multipart(request: Request, options: ClassifyOptions, max_images: int) -> Call:
    try:
        async with request.form(max_files=max_images, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            images = [
                Upload(await value.read(), value.filename)
                for key, value in form.multi_items()
                if isinstance(value, UploadFile) and key in IMAGE_FIELDS
            ]
            given = _form_options(form)
    except HTTPException as error:
        if error.detail.startswith("Too many files"):
            raise LimitExceeded("max_images", max_images, field="images") from error
        raise BadRequest(f"the multipart body cannot be read: {error.detail}") from error
    _check_count(len(images), max_images)
    return Call(images, _merged(options, given.model_dump(include=given.model_fields_set)))


def _form_options(form: FormData) -> ClassifyOptions:
    """Empty fields are what HTML forms send for nothing."""
    given: dict[str, Any] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            if key not in IMAGE_FIELDS:
                raise Unprocessable(f"{key}: files belong into the field `images`", field=key)
        elif key in LISTS:
            given.setdefault(key, []).append(value)
        elif value != "":
            given[key] = value
    if "labels" in given:
        given["labels"] = split_labels(given["labels"])
    return _validated(ClassifyOptions, given)


def _validated(model: type[Model], content: bytes | dict[str, Any]) -> Model:
    try:
        return model.model_validate_json(content) if isinstance(content, bytes) else model.model_validate(content)
    except ValidationError as error:
        raise validation_problem(error.errors(include_url=False)) from error


def _merged(options: ClassifyOptions, given: dict[str, Any]) -> ClassifyOptions:
    if "labels" in given or "label_set" in given:  # the body's choice replaces the query's, whichever it was
        options = options.model_copy(update={"labels": None, "label_set": None})
    return options.model_copy(update=given)


def _check_count(count: int, max_images: int) -> None:
    if count > max_images:
        raise LimitExceeded("max_images", max_images, actual=count, field="images")
    if count == 0:
        raise Unprocessable("no image was given", field="images")
