"""/v1/label-sets/{label_set}/fit and /classes: few-shot fits, and more classes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from service.http.deps import CoreDep, WaitDep
from service.http.prefer import applied
from service.http.problems import problem_answers
from service.routes.bodies import read_json
from service.routes.label_sets import accepted, class_name, shown
from service.schemas import ClassesRequest, FitRequest, LabelSetAnswer

router = APIRouter(prefix="/v1/label-sets/{label_set}")


def body_of(model: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/fit",
    operation_id="start_fit",
    status_code=202,
    responses={
        200: {"model": LabelSetAnswer, "description": "This fit is there already."},
        202: {"model": LabelSetAnswer, "description": "Noted; the fit follows."},
        **problem_answers(400, 404, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra=body_of("FitRequest"),
)
async def start_fit(label_set: str, request: Request, core: CoreDep, wait: WaitDep) -> Response:
    body = await read_json(request, FitRequest) if await request.body() else FitRequest()
    record, working = await core.fits.start(label_set, body.adapter, body.options, body.deadline_seconds)
    if wait:
        await core.label_sets.flight(record).settled(wait)
        record = await core.label_sets.find(record.id)  # its fit may have failed meanwhile, which is written there
    headers = {"Location": f"/v1/label-sets/{record.id}", **applied(wait)}
    return JSONResponse(await shown(core, record), 202 if working else 200, headers)


@router.delete("/fit", operation_id="cancel_fit", status_code=204, responses=problem_answers(404, 503))
async def cancel_fit(label_set: str, core: CoreDep) -> Response:
    await core.fits.cancel(label_set)
    return Response(status_code=204)


@router.post(
    "/classes",
    operation_id="add_classes",
    status_code=202,
    responses={
        200: {"model": LabelSetAnswer, "description": "The same content was there already."},
        202: {"model": LabelSetAnswer, "description": "The new label set, stored; adaptation follows."},
        **problem_answers(400, 404, 408, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=body_of("ClassesRequest"),
)
async def add_classes(label_set: str, request: Request, core: CoreDep, wait: WaitDep) -> Response:
    body = await read_json(request, ClassesRequest)
    record, new = await core.fits.add_classes(label_set, [class_name(entry) for entry in body.classes])
    return await accepted(core, record, working=new, wait=wait)
