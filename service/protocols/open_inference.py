"""/v2: the Open Inference Protocol over HTTP, with its binary tensors. Models are the backbone and every label set."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import JSONResponse, Response

from service.core import Core
from service.errors import NotFound, UnsupportedType
from service.http.deps import CoreDep, PatienceDep, ReadinessDep, RuntimeDep, WaitDep
from service.http.openapi import TITLE, VERSION
from service.http.prefer import applied
from service.http.problems import problem_answers
from service.images.inputs import Call
from service.protocols.inference import INPUTS, OUTPUTS, images_of, options_of, patience_of, tensors_of, wanted
from service.protocols.schemas import InferAnswer, Live, ModelMetadata, Ready, ServerMetadata
from service.protocols.scoring import ForeignRoute, facts, label_set_of
from service.protocols.tensors import answer_body, split_body, text_tensors
from service.routes.classifying import Classifying

router = APIRouter(prefix="/v2", route_class=ForeignRoute)

HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "open_clip"
VERSION_CHARACTERS = 12
LengthHeader = Annotated[str | None, Header(alias=HEADER_LENGTH)]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
            "application/octet-stream": _BINARY,
        },
    }
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InferAnswer,
        "description": "One row per image. With binary outputs: the same JSON, and the tensors behind it.",
        "content": {"application/octet-stream": _BINARY},
    },
    **problem_answers(400, 404, 408, 413, 415, 422, 429, 500, 503, 504),
}
MODEL = "/models/{model}"
VERSIONED = MODEL + "/versions/{version}"
KNOWN = problem_answers(404, 503)


@router.get("", operation_id="v2_server")
async def server() -> ServerMetadata:
    return ServerMetadata(name=TITLE, version=VERSION, extensions=EXTENSIONS)


@router.get("/health/live", operation_id="v2_live")
async def live() -> Live:
    return Live(live=True)


@router.get(
    "/health/ready",
    operation_id="v2_ready",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "Unready."}},
)
async def ready(check: ReadinessDep) -> Response:
    able = (await check()).status != "unready"
    return JSONResponse({"name": TITLE, "ready": able}, 200 if able else 503)


@router.get(f"{VERSIONED}/ready", operation_id="v2_model_version_ready", responses=KNOWN)
async def version_ready(model: str, version: str, core: CoreDep) -> Ready:
    return await model_ready(model, core, version)


@router.get(f"{MODEL}/ready", operation_id="v2_model_ready", responses=KNOWN)
async def plain_ready(model: str, core: CoreDep) -> Ready:
    return await model_ready(model, core)


@router.get(VERSIONED, operation_id="v2_model_version", responses=KNOWN)
async def version_metadata(model: str, version: str, core: CoreDep) -> ModelMetadata:
    return await metadata_of(model, core, version)


@router.get(MODEL, operation_id="v2_model", responses=KNOWN)
async def plain_metadata(model: str, core: CoreDep) -> ModelMetadata:
    return await metadata_of(model, core)


async def known_version(model: str, version: str, core: CoreDep) -> None:
    await found(core, model, version)


@router.post(
    f"{VERSIONED}/infer",
    operation_id="v2_infer_version",
    responses=ANSWERS,
    openapi_extra=BODY,
    dependencies=[Depends(known_version)],
)
@router.post(f"{MODEL}/infer", operation_id="v2_infer", responses=ANSWERS, openapi_extra=BODY)
async def infer(
    *,
    model: str,
    request: Request,
    runtime: RuntimeDep,
    core: CoreDep,
    wait: WaitDep,
    patience: PatienceDep,
    length: LengthHeader = None,
) -> Response:
    asked = Classifying(request, runtime, core)
    label_set = await found(core, model)
    if coding := request.headers.get("content-encoding"):
        raise UnsupportedType(f"a body in {coding} coding is not served: send it as it is")
    with asked.admitted():
        with asked.receiving():
            sent, tail = split_body(await request.body(), length)
            tensors, wishes = text_tensors(sent, tail), wanted(sent)
            images = images_of(sent, tensors, max_images=runtime.settings.max_images)
            call = Call(images, options_of(sent, tensors, label_set))
            patience = patience_of(sent, patience)
        answer = await asked.answer(call, wait=wait, patience=patience)
    headers = {**facts(answer, asked.shown()), **applied(wait)}
    with asked.encoding():
        document: dict[str, object] = {} if sent.id is None else {"id": sent.id}
        told = {name: answer[name] for name in ("adapted", "served_by", "label_set", "status")}
        document |= {"model_name": model, "model_version": version_of(core, label_set), "parameters": told}
        made = tensors_of(answer["results"])
        body, head = answer_body(document, [(made[name], binary) for name, binary in wishes])
    if head is None:
        return Response(body, headers=headers, media_type="application/json")
    return Response(body, headers={**headers, HEADER_LENGTH: str(head)}, media_type="application/octet-stream")


async def model_ready(model: str, core: Core, version: str | None = None) -> Ready:
    await found(core, model, version)
    return Ready(name=model, ready=True)


async def metadata_of(model: str, core: Core, version: str | None = None) -> ModelMetadata:
    label_set = await found(core, model, version)
    inputs = INPUTS if label_set is None else INPUTS[:1]
    versions = [version_of(core, label_set)]
    return ModelMetadata(name=model, versions=versions, platform=PLATFORM, inputs=inputs, outputs=OUTPUTS)


async def found(core: Core, model: str, version: str | None = None) -> str | None:
    """The id of the label set that the model is, None for the backbone. Raises `NotFound`."""
    label_set = await label_set_of(core, model)
    served = version_of(core, label_set)
    if version is not None and version != served:
        raise NotFound(f"model {model!r} has no version {version!r}", served=[served])
    return label_set


def version_of(core: Core, label_set: str | None) -> str:
    """Changes when a name comes to mean other content."""
    return (core.backbone.fingerprint if label_set is None else label_set)[:VERSION_CHARACTERS]
