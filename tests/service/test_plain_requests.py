"""The short way of classify requests: it must never read anything otherwise than FastAPI does."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request
from starlette.responses import JSONResponse, Response

from service.routes.classify import query_options
from service.routes.plain_requests import Plain, plainly_right, short_way
from service.schemas import ClassifyOptions

PLAIN = [
    "",
    "label_set=abc",
    "label_set=a%20b%C3%A9+c&top_k=7",
    "label_set=x&adapter=self-tpt&scores=independent",
    "top_k=999999999",
]
RARE = [
    *("labels=cat,dog", "templates=a {}", "reject_below=0.5", "scores=other", "unknown=1"),
    *("label_set=", "label_set=a&label_set=b"),
    *("top_k=0", "top_k=05", "top_k=five", "top_k=%2B5", "top_k=1234567890", "top_k=%D9%A3"),
]


def told(options: ClassifyOptions, patience: int | None) -> dict[str, object]:
    return {**options.model_dump(), "patience": patience}


async def short(request: Request, plain: Plain) -> Response:
    return JSONResponse({**told(plain.options, plain.patience), "way": "short"})


def application() -> FastAPI:
    router = APIRouter(route_class=short_way(short))

    @router.post("/v1/classify")
    async def whole(
        options: Annotated[ClassifyOptions, Depends(query_options)],
        patience: Annotated[int | None, Header(alias="X-Request-Timeout-Ms", ge=1)] = None,
    ) -> dict[str, object]:
        return {**told(options, patience), "way": "whole"}

    app = FastAPI()
    app.include_router(router)
    app.add_api_route("/whole", whole, methods=["POST"])
    return app


async def both(query: str, headers: dict[str, str]) -> tuple[httpx.Response, httpx.Response]:
    transport = httpx.ASGITransport(application())
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        answers = [await http.post(f"{path}?{query}", headers=headers) for path in ("/v1/classify", "/whole")]
    return answers[0], answers[1]


@pytest.mark.parametrize("query", PLAIN)
async def test_the_short_way_reads_what_fastapi_reads(query: str) -> None:
    for headers in ({}, {"X-Request-Timeout-Ms": "250"}):
        ours, theirs = await both(query, headers)
        assert ours.json() == {**theirs.json(), "way": "short"}


@pytest.mark.parametrize("query", RARE)
async def test_whatever_is_rare_or_wrong_takes_fastapis_way(query: str) -> None:
    ours, theirs = await both(query, {})
    assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())
    assert ours.json().get("way") != "short"


@pytest.mark.parametrize("patience", ["", "0", "-1", "1.5", "abc", "1e3"])
async def test_a_strange_patience_takes_fastapis_way(patience: str) -> None:
    ours, theirs = await both("label_set=a", {"X-Request-Timeout-Ms": patience})
    assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())


def test_repeated_header_fields_take_fastapis_way() -> None:
    prefer = (b"prefer", b"wait=5")
    found = plainly_right(b"label_set=a", [prefer])
    assert found is not None
    assert found.prefer == "wait=5"
    assert plainly_right(b"label_set=a", [prefer, prefer]) is None
