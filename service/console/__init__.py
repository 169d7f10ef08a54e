"""The page at `/`: a few static files, served from memory with a strict content policy. It only uses the public API."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI, Request, Response

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console/console.css": ("console.css", "text/css; charset=utf-8"),
    "/console/console.js": ("console.js", "text/javascript; charset=utf-8"),
    "/console/api.js": ("api.js", "text/javascript; charset=utf-8"),
    "/console/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}

# Everything comes from this origin; images that the visitor chose are shown through blob addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Handler = Callable[[Request], Awaitable[Response]]


def mount_console(app: FastAPI) -> None:
    """Adds the page and its parts to `app`, outside of the documented API."""
    folder = files("service.console")
    for path, (name, media_type) in PAGES.items():
        handler = _serve(folder.joinpath(name).read_bytes(), media_type)
        app.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False, name=f"console {name}")


def _serve(content: bytes, media_type: str) -> Handler:
    headers = {
        "Content-Type": media_type,
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache",
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"',
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }

    async def handler(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    return handler
