"""The short way of classify requests whose parameters are plainly right. FastAPI's reading of ten parameters costs more
than all else that the front end does for a request; so it reads only what this does not, and finds every fault."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from service.schemas import ClassifyOptions

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

TEXTS = {"label_set", "adapter"}
SCORES = {"softmax", "independent"}
MOST_DIGITS = 9
PREFER, PATIENCE = b"prefer", b"x-request-timeout-ms"


@dataclass(frozen=True, slots=True)
class Plain:
    """The parameters of a request. `patience` in milliseconds."""

    options: ClassifyOptions
    prefer: str | None
    patience: int | None


def plainly_right(query: bytes, headers: list[tuple[bytes, bytes]]) -> Plain | None:
    """None for whatever is rare, repeated, empty or not as it should be."""
    found = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    given: dict[str, Any] = dict(found)
    told = [(name, value) for name, value in headers if name in {PREFER, PATIENCE}]
    heads = dict(told)
    if len(given) < len(found) or len(heads) < len(told):
        return None
    for name, value in given.items():
        if name == "top_k" and _counts(value):
            given[name] = int(value)
        elif not ((name in TEXTS and value) or (name == "scores" and value in SCORES)):
            return None
    prefer, patience = heads.get(PREFER), heads.get(PATIENCE, b"").decode("latin-1")
    if PATIENCE in heads and not _counts(patience):
        return None
    return Plain(
        ClassifyOptions.model_construct(**given),
        None if prefer is None else prefer.decode("latin-1"),
        int(patience) if patience else None,
    )


def _counts(text: str) -> bool:
    """Whether it is a whole number from 1 on, written as people do."""
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS and text[0] != "0"


def short_way(answer: Callable[[Request, Plain], Coroutine[Any, Any, Response]]) -> type[APIRoute]:
    """A kind of route that lets `answer` have the plain requests; all others take FastAPI's way to its endpoint."""

    class ShortWay(APIRoute):
        def get_route_handler(self) -> Handler:
            whole_way = super().get_route_handler()

            async def handle(request: Request) -> Response:
                plain = plainly_right(request.scope["query_string"], request.scope["headers"])
                return await (whole_way(request) if plain is None else answer(request, plain))

            return handle

    return ShortWay
