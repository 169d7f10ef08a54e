"""POST /models/{model} in the shapes of Hugging Face's zero-shot-image-classification and image-classification."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from service.errors import Unprocessable
from service.http.deps import CoreDep, PatienceDep, RuntimeDep, WaitDep
from service.http.prefer import applied
from service.http.problems import problem_answers
from service.images.formats import FORMATS
from service.images.inputs import Call, Upload, from_base64
from service.protocols.schemas import HuggingFaceRequest, HuggingFaceScore, HuggingFaceWishes
from service.protocols.scoring import ForeignRoute, facts, label_set_of
from service.routes.bodies import media_type, read_json, split_labels
from service.routes.classifying import Classifying
from service.schemas import ClassifyOptions, ScoreKind

router = APIRouter(route_class=ForeignRoute)

SCORES: dict[str, ScoreKind] = {"softmax": "softmax", "sigmoid": "independent"}
LABEL_SET_TOP_K = 5
"""What image-classification answers with unless it is told."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/HuggingFaceRequest"}},
            **dict.fromkeys(FORMATS.values(), _BINARY),
        },
    }
}


@router.post(
    "/models/{model}",
    operation_id="hugging_face_classify",
    responses={
        200: {"model": list[HuggingFaceScore], "description": "Labels, best first."},
        **problem_answers(400, 404, 408, 413, 415, 422, 429, 500, 503, 504),
    },
    openapi_extra=BODY,
)
async def classify(
    *, model: str, request: Request, runtime: RuntimeDep, core: CoreDep, wait: WaitDep, patience: PatienceDep
) -> Response:
    asked = Classifying(request, runtime, core)
    label_set = await label_set_of(core, model)
    with asked.admitted():
        with asked.receiving():
            upload, wishes = await read_image(request)
            call = Call([upload], options_of(wishes, label_set, runtime.settings.max_top_k))
        answer = await asked.answer(call, wait=wait, patience=patience)
    headers = {**facts(answer, asked.shown()), **applied(wait)}
    with asked.encoding():
        best = [{"label": one["label"], "score": one["score"]} for one in answer["results"][0]["predictions"]]
        return JSONResponse(best, headers=headers)


async def read_image(request: Request) -> tuple[Upload, HuggingFaceWishes]:
    kind = media_type(request)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return Upload(await request.body()), HuggingFaceWishes()
    body = await read_json(request, HuggingFaceRequest)
    return from_base64(body.inputs if isinstance(body.inputs, str) else body.inputs.image), body.parameters


def options_of(wishes: HuggingFaceWishes, label_set: str | None, max_top_k: int) -> ClassifyOptions:
    """Raises `Unprocessable` unless there are candidate labels, or a label set but no candidates."""
    given = wishes.candidate_labels
    labels = split_labels([given] if isinstance(given, str) else given)
    if label_set is None and not labels:
        raise Unprocessable("parameters.candidate_labels: class names are needed", field="parameters.candidate_labels")
    if label_set is not None and labels:
        raise Unprocessable("a label set has its own classes", field="parameters.candidate_labels")
    template = wishes.hypothesis_template
    few = LABEL_SET_TOP_K if labels is None else min(len(labels), max_top_k)
    return ClassifyOptions.model_construct(
        labels=labels,
        templates=[] if template is None else [template],
        label_set=label_set,
        adapter=None,
        top_k=wishes.top_k or few,
        scores=SCORES[wishes.function_to_apply or "softmax"],
        reject_below=None,
    )
