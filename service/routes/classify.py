"""POST /v1/classify."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.core import Core
from service.http.deps import (
    CoreDep,
    PatienceDep,
    RuntimeDep,
    WaitDep,
    get_caller,
    get_core,
    get_patience,
    get_runtime,
    get_wait,
)
from service.http.prefer import applied
from service.http.problems import problem_answers
from service.images.formats import FORMATS
from service.routes.bodies import read_call, split_labels
from service.routes.classifying import Classifying, server_timing
from service.routes.plain_requests import Plain, short_way
from service.runtime import Runtime
from service.schemas import ClassifyAnswer, ClassifyOptions, ScoreKind, Threshold

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {"type": "array", "items": _BINARY["schema"]},
        "labels": {"type": "array", "items": {"type": "string"}},
        "templates": {"type": "array", "items": {"type": "string"}},
        "label_set": {"type": "string"},
        "adapter": {"type": "string"},
        "top_k": {"type": "integer", "minimum": 1, "default": 5},
        "scores": {"type": "string", "enum": ["softmax", "independent"], "default": "softmax"},
        "reject_below": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys(FORMATS.values(), _BINARY),
            "multipart/form-data": {"schema": _FORM},
            "application/json": {"schema": {"$ref": "#/components/schemas/ClassifyRequest"}},
        },
    }
}


async def query_options(
    *,
    label_set: Annotated[str | None, Query()] = None,
    labels: Annotated[list[str] | None, Query()] = None,
    templates: Annotated[list[str] | None, Query()] = None,
    adapter: Annotated[str | None, Query()] = None,
    top_k: Annotated[int, Query(ge=1)] = 5,
    scores: Annotated[ScoreKind, Query()] = "softmax",
    reject_below: Annotated[Threshold | None, Query()] = None,
) -> ClassifyOptions:
    return ClassifyOptions.model_construct(
        label_set=label_set,
        labels=split_labels(labels),
        templates=templates or [],
        adapter=adapter,
        top_k=top_k,
        scores=scores,
        reject_below=reject_below,
    )


async def answered(
    request: Request, options: ClassifyOptions, *, runtime: Runtime, core: Core, wait: int, patience: float | None
) -> Response:
    asked = Classifying(request, runtime, core)
    with asked.admitted():
        with asked.receiving():
            call = await read_call(request, options, max_images=runtime.settings.max_images)
        answer = await asked.answer(call, wait=wait, patience=patience)
    shown = asked.shown()
    with asked.encoding():
        body = json.dumps({**answer, "timings_ms": shown}, ensure_ascii=False).encode()
    return Response(body, headers={**server_timing(shown), **applied(wait)}, media_type="application/json")


async def plain_answer(request: Request, plain: Plain) -> Response:
    """What the dependencies of `classify` do, for parameters that are known to be right."""
    runtime = await get_runtime(request)
    core = await get_core(runtime, await get_caller(request))
    wait = await get_wait(runtime, plain.prefer)
    patience = await get_patience(plain.patience)
    return await answered(request, plain.options, runtime=runtime, core=core, wait=wait, patience=patience)


router = APIRouter(route_class=short_way(plain_answer))


@router.post(
    "/v1/classify",
    operation_id="classify",
    responses={
        200: {"model": ClassifyAnswer, "description": "One result per image, in order."},
        **problem_answers(400, 404, 408, 413, 415, 422, 429, 500, 503, 504),
    },
    openapi_extra=BODY,
)
async def classify(
    *,
    request: Request,
    runtime: RuntimeDep,
    core: CoreDep,
    wait: WaitDep,
    patience: PatienceDep,
    options: Annotated[ClassifyOptions, Depends(query_options)],
) -> Response:
    return await answered(request, options, runtime=runtime, core=core, wait=wait, patience=patience)
