"""The page at `/`: static files, served from memory with a strict content policy. It only uses the public API."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from fastapi import FastAPI

from service.http.static import static_part

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
PLACES = {"index.html": "/", "favicon.svg": "/favicon.svg"}
"""Every other file is below /console/."""


def mount_console(app: FastAPI) -> None:
    """Adds the page and its parts to `app`, outside of the documented API."""
    for name, content in pages():
        handler = static_part(content, TYPES[name.rpartition(".")[2]])
        path = PLACES.get(name, f"/console/{name}")
        app.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False, name=f"console {name}")


def pages() -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of the page."""
    for file in sorted(files("service.console").iterdir(), key=lambda one: one.name):
        if file.name.rpartition(".")[2] in TYPES:
            yield file.name, file.read_bytes()
