"""What both protocols share: which model a path names, and answers and errors in their clients' form."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from service.core import Core
from service.errors import NotFound, ServiceError
from service.http.problems import validation_problem
from service.routes.classifying import server_timing

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ForeignRoute(APIRoute):
    """Problem documents get the member `error`, which is where clients of these protocols look for the reason."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_named(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise named(validation_problem(error.errors())) from error
            except ServiceError as error:
                raise named(error) from None

        return handle_named


def named(error: ServiceError) -> ServiceError:
    error.extensions["error"] = error.detail
    return error


def backbone_name(core: Core) -> str:
    """Without the folders of a checkpoint or the owner in a hub: one segment of a path."""
    return core.backbone.name.rpartition("/")[2]


async def label_set_of(core: Core, model: str) -> str | None:
    """The id of the label set that a model name means; None for the backbone, which goes with any labels."""
    name = backbone_name(core)
    if model == name:
        return None
    try:
        return (await core.label_sets.find(model)).id
    except NotFound as error:
        raise NotFound(
            f"there is no model {model!r}: {name!r} is served, and every label set", served=[name]
        ) from error


def facts(answer: dict[str, Any], milliseconds: dict[str, float]) -> dict[str, str]:
    """Headers for what the bodies have no room for."""
    adapted = "true" if answer["adapted"] else "false"
    return {"X-Adapted": adapted, "X-Served-By": answer["served_by"], **server_timing(milliseconds)}
