"""Which image formats are served, their media types, and how their bytes begin. Imports nothing, for clients too."""

from __future__ import annotations

FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
"""Media types by Pillow's names."""

BEGINNINGS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"GIF8": "GIF"}


def sniffed_type(data: bytes) -> str | None:
    """The media type by the first bytes; None when they begin no image that is served."""
    return next((FORMATS[name] for start, name in BEGINNINGS.items() if data.startswith(start)), None)
