"""What is served and what is refused, and how the service is doing."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import JSONResponse, Response

from adapters import describe_methods
from service.compute.image_engine import engine_answer
from service.errors import DeviceDead, NotFound, NotReady
from service.http.deps import CoreDep, ReadinessDep, RuntimeDep
from service.http.problems import JSON_DEPTH, problem_answers, problem_types
from service.images.formats import FORMATS
from service.runtime import Runtime
from service.schemas import (
    AdaptersAnswer,
    Alive,
    LimitsAnswer,
    ModelAnswer,
    ModelsAnswer,
    OptionAnswer,
    Readiness,
)

router = APIRouter()


@router.get("/v1/adapters", operation_id="list_adapters", response_description="Methods.")
async def list_adapters(runtime: RuntimeDep) -> AdaptersAnswer:
    return AdaptersAnswer(
        default=runtime.settings.adapter, adapters=[OptionAnswer(**method) for method in describe_methods()]
    )


@router.get("/v1/models", operation_id="list_models", responses=problem_answers(503))
async def list_models(core: CoreDep, runtime: RuntimeDep) -> ModelsAnswer:
    backbone, decision = core.backbone, runtime.engine_decision
    served = ModelAnswer(
        name=backbone.name,
        fingerprint=backbone.fingerprint,
        embed_dim=backbone.embed_dim,
        image_size=backbone.preprocess.size,
        device=str(backbone.device),
        precision=backbone.precision,
        engine=None if decision is None else engine_answer(decision),
        preprocess=core.decoder.mode,
        source_prompts=backbone.source_prompts,
        logit_scale=backbone.logit_scale,
    )
    return ModelsAnswer(models=[served])


@router.get("/v1/limits", operation_id="list_limits")
async def list_limits(runtime: RuntimeDep) -> LimitsAnswer:
    settings = runtime.settings
    limits = {**settings.limits, "max_json_depth": JSON_DEPTH, **tokens_limit(runtime)}
    return LimitsAnswer(limits=limits, image_types=list(FORMATS.values()), exif=settings.exif)


def tokens_limit(runtime: Runtime) -> dict[str, int]:
    """Tokens of one prompt, template and all; known once the backbone is loaded."""
    try:
        return {"max_tokens": runtime.core.backbone.text.context_length}
    except NotReady:
        return {}


@router.get("/livez", operation_id="livez", responses=problem_answers(503))
async def livez(runtime: RuntimeDep) -> Alive:
    """Red only for what a restart of the process heals, and nothing else does."""
    if runtime.beyond_help:
        raise DeviceDead("the device thread died too often to be started again: restart the process")
    return Alive()


@router.get(
    "/readyz",
    operation_id="readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Unready."}},
)
async def readyz(check: ReadinessDep) -> Response:
    found = await check()
    headers = {"Cache-Control": "no-store"}
    return JSONResponse(found.model_dump(), 503 if found.status == "unready" else 200, headers)


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"description": "The exposition format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(request: Request, runtime: RuntimeDep) -> Response:
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    registry = await runtime.metrics.scraped()
    return Response(await asyncio.to_thread(encode, registry), headers={"Content-Type": media_type})


@router.get("/problems/{slug}", include_in_schema=False)
async def explain_problem(slug: str) -> JSONResponse:
    """What the `type` of a problem document points to."""
    found = problem_types().get(slug)
    if found is None:
        raise NotFound(f"there is no problem type {slug!r}")
    return JSONResponse(found)
