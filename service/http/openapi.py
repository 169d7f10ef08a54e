"""The OpenAPI document of the application, and a page that shows it without loading anything from elsewhere."""

from __future__ import annotations

import html
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.responses import HTMLResponse, JSONResponse, Response

from service.http.problems import problem_answers
from service.protocols.schemas import HuggingFaceRequest, InferRequest
from service.schemas import ClassesRequest, ClassifyRequest, FitRequest, LabelSetRequest, Problem
from service.security.scopes import needed_scopes

TITLE = "self-tpt-service"
VERSION = "1"
READ_BODIES = (ClassifyRequest, LabelSetRequest, FitRequest, ClassesRequest, HuggingFaceRequest, InferRequest)
REFERENCE = "#/components/schemas/{model}"

router = APIRouter(include_in_schema=False)


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own document, and the schemas of the bodies that routes read by themselves."""
    if app.openapi_schema is None:
        document = get_openapi(title=TITLE, version=VERSION, routes=app.routes)
        _, read = models_json_schema(
            [(body, "validation") for body in READ_BODIES],
            ref_template=REFERENCE,
        )
        _, told = models_json_schema([(Problem, "serialization")], ref_template=REFERENCE)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas |= {**read["$defs"], **told["$defs"]}
        _without_fastapis_errors(document)
        _with_keys(document)
        app.openapi_schema = document
    return app.openapi_schema


def _without_fastapis_errors(document: dict[str, Any]) -> None:
    """FastAPI promises its own validation errors wherever there is a parameter; here they are problem documents."""
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            answer = operation["responses"].get("422", {}).get("content", {})
            if "HTTPValidationError" in str(answer):
                del operation["responses"]["422"]


def _with_keys(document: dict[str, Any]) -> None:
    """An API key is needed where the service was given some; every operation behind the door may say so."""
    document["components"]["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"apiKey": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if needed_scopes(method.upper(), path) is None:
                operation["security"] = [{}]
            else:
                operation["responses"] |= {str(code): said for code, said in problem_answers(401, 403, 429).items()}


@router.get("/openapi.json")
async def document(request: Request) -> JSONResponse:
    return JSONResponse(openapi_document(request.app))


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    return HTMLResponse(page(openapi_document(request.app)))


@router.get("/docs.css")
async def docs_style() -> Response:
    return Response(STYLE, media_type="text/css")


def page(document: dict[str, Any]) -> str:
    routes = [
        _route(method, path, operation, document)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return PAGE.replace("{{routes}}", "\n".join(routes))


def _route(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    about = operation.get("description") or operation.get("summary") or ""
    rows = [_row(one["name"], one["in"], one["schema"], document) for one in operation.get("parameters", [])]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        rows += [_row("body", kind, content["schema"], document)]
    answers = ", ".join(f"<b>{code}</b>" for code in operation["responses"])
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return (
        f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(about)}</p>{table}"
        f"<p>Answers: {answers}</p></section>"
    )


def _row(name: str, place: str, schema: dict[str, Any], document: dict[str, Any]) -> str:
    return f"<tr><td><code>{name}</code></td><td>{place}</td><td>{html.escape(type_text(schema, document))}</td></tr>"


def type_text(schema: dict[str, Any], document: dict[str, Any]) -> str:
    """A schema in one line: `string`, `integer = 5`, `{images: string[], top_k: integer = 5}`."""
    if "$ref" in schema:
        return type_text(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if "anyOf" in schema:
        kinds = [type_text(one, document) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in schema:
        text = " | ".join(map(str, schema["enum"]))
    elif "properties" in schema:
        text = "{" + ", ".join(f"{key}: {type_text(one, document)}" for key, one in schema["properties"].items()) + "}"
    elif schema.get("type") == "array":
        text = f"{type_text(schema['items'], document)}[]"
    else:
        text = str(schema.get("type", "any"))
    return f"{text} = {schema['default']}" if schema.get("default") not in (None, [], {}) else text


STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8884; padding: .5rem 0; }
h2 { font-size: 1.1rem; margin: .5rem 0; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
:root { color-scheme: light dark; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>self-tpt-service API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/docs.css"></head><body>
<h1>self-tpt-service API</h1>
<p>The machine-readable form is <a href="/openapi.json">/openapi.json</a>. Errors are problem documents (RFC 9457).</p>
{{routes}}
</body></html>
"""
