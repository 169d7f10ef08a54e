"""/v1/label-sets: upload, list, show, follow, delete."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from adapters.base import ClassName
from service.class_states.flights import Flight, Snapshot
from service.core import Core
from service.errors import ServiceError
from service.http.deps import CoreDep, WaitDep
from service.http.prefer import applied
from service.http.problems import problem_answers
from service.labels.plans import ZERO_SHOT
from service.labels.records import Fit, Record
from service.routes.bodies import read_json
from service.schemas import ClassEntry, LabelSetAnswer, LabelSetPage, LabelSetRequest

router = APIRouter(prefix="/v1/label-sets")

HEARTBEAT = 15.0
"""Seconds of silence after which a comment keeps an event stream alive."""

NO_SUPPORT = "no fit to support images was asked for, so the class names are all there is to learn from"

EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["progress", "ready", "failed", "awaiting-support"]},
        "data": {"type": "string"},
    },
}

FINAL = {"ready", "failed", "awaiting-support"}

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/LabelSetRequest"}}},
    }
}


@router.post(
    "",
    operation_id="create_label_set",
    status_code=202,
    responses={
        200: {"model": LabelSetAnswer, "description": "The same content was there already."},
        202: {"model": LabelSetAnswer, "description": "Stored; adaptation follows."},
        **problem_answers(400, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra=BODY,
)
async def create_label_set(request: Request, core: CoreDep, wait: WaitDep) -> Response:
    body = await read_json(request, LabelSetRequest)
    record, new = await core.label_sets.upload(
        [class_name(entry) for entry in body.classes],
        body.templates,
        adapter=body.adapter,
        options=body.options,
        name=body.name,
    )
    return await accepted(core, record, working=new, wait=wait)


@router.get(
    "",
    operation_id="list_label_sets",
    responses={200: {"model": LabelSetPage, "description": "One page."}, **problem_answers(422, 503)},
)
async def list_label_sets(
    core: CoreDep, after: Annotated[str, Query()] = "", limit: Annotated[int, Query(ge=1, le=100)] = 50
) -> Response:
    records, following = await core.label_sets.records.page(after=after, limit=limit)
    rows = [summary(record, await known(core, record)) for record in records]
    return JSONResponse({"label_sets": rows, "next": following})


@router.get(
    "/{label_set}",
    operation_id="get_label_set",
    responses={200: {"model": LabelSetAnswer, "description": "The label set."}, **problem_answers(404, 503)},
)
async def get_label_set(label_set: str, core: CoreDep) -> Response:
    return JSONResponse(await shown(core, await core.label_sets.find(label_set)))


@router.delete("/{label_set}", operation_id="delete_label_set", status_code=204, responses=problem_answers(404, 503))
async def delete_label_set(label_set: str, core: CoreDep) -> Response:
    await core.label_sets.remove(label_set)
    return Response(status_code=204)


@router.get(
    "/{label_set}/events",
    operation_id="watch_label_set",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The events.", "content": {"text/event-stream": {"schema": EVENT}}},
        **problem_answers(404, 503),
    },
)
async def watch_label_set(label_set: str, core: CoreDep) -> Response:
    flight = core.label_sets.flight(await core.label_sets.find(label_set))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(flight), media_type="text/event-stream", headers=headers)


async def events(flight: Flight, *, heartbeat: float = HEARTBEAT) -> AsyncIterator[str]:
    """Ends after the final event, or without one when the service goes down."""
    seen = flight.snapshot
    yield event(seen)
    while not (flight.final and seen == flight.snapshot) and not flight.released:
        if await flight.changed(seen, heartbeat):
            seen = flight.snapshot
            yield event(seen)
        elif not flight.released:
            yield ": still here\n\n"


def event(snapshot: Snapshot) -> str:
    kind = snapshot.status if snapshot.status in FINAL else "progress"
    data: dict[str, object] = {"status": snapshot.status, "progress": round(snapshot.progress, 4)}
    if snapshot.error is not None:
        data["error"] = snapshot.error
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def class_name(entry: str | ClassEntry) -> ClassName:
    if isinstance(entry, str):
        return ClassName.of(entry)
    return ClassName.of(entry.name, tuple(entry.aliases), tuple(entry.descriptions))


def summary(record: Record, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "former_name": record.former_name,
        "status": snapshot.status,
        "progress": round(snapshot.progress, 4),
        "adapter": record.adapter if record.fit is None else record.fit.adapter,
        "class_count": len(record.labels.classes),
        "created": record.created,
    }


async def known(core: Core, record: Record) -> Snapshot:
    try:
        return await core.label_sets.snapshot(record)
    except ServiceError as error:  # its method is not served by this installation
        return Snapshot("failed", 0.0, error.detail)


async def accepted(core: Core, record: Record, *, working: bool, wait: int) -> Response:
    """The label set after up to `wait` seconds of whatever was begun for it; 202 when something was."""
    if wait:
        await core.label_sets.flight(record).settled(wait)
    elif working:
        await core.label_sets.flight(record).answered()  # what will not be done for its cost is known by then
    headers = {"Location": f"/v1/label-sets/{record.id}", **applied(wait)}
    return JSONResponse(await shown(core, record), 202 if working else 200, headers)


async def shown(core: Core, record: Record) -> dict[str, Any]:
    snapshot = await known(core, record)
    answer = summary(record, snapshot)
    names = list(record.labels.names)
    options = record.options if record.fit is None else record.fit.options
    answer |= {"options": dict(options), "classes": names, "templates": list(record.labels.templates)}
    answer |= {"seconds": None, "bytes": None, "fingerprint": core.backbone.fingerprint, "version": "", "info": {}}
    answer |= {"fit": None if record.fit is None else shown_fit(record.fit)}
    answer |= {"estimated_seconds": estimated(core, record, snapshot)}
    if snapshot.error is not None:
        return answer | {"error": snapshot.error}
    want = core.label_sets.plan(record).want
    state = await core.label_sets.states.load(want)
    answer["version"] = want.adapter.version
    if state is not None and snapshot.status == "ready":
        answer |= {"seconds": state.info.get("seconds"), "bytes": state.nbytes, "info": dict(state.info)}
    if record.auto and record.fit is None:
        chosen = ZERO_SHOT if snapshot.declined else record.adapter
        answer["info"] = {**answer["info"], "chosen": chosen, "auto_reason": snapshot.declined or NO_SUPPORT}
    return answer


def estimated(core: Core, record: Record, snapshot: Snapshot) -> float | None:
    if snapshot.status == "failed":
        return None
    seconds = core.label_sets.seconds_left(record, snapshot)
    return None if seconds is None else round(seconds, 2)


def shown_fit(fit: Fit) -> dict[str, Any]:
    return {
        "adapter": fit.adapter,
        "options": dict(fit.options),
        "support": fit.support,
        "deadline_seconds": fit.deadline,
        "created": fit.created,
        "error": fit.error,
        "former": None if fit.former is None else shown_fit(fit.former),
    }
