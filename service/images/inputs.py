"""What a classify request brings, whichever form its body had."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from service.errors import ImageError, ServiceError
from service.schemas import ClassifyOptions

DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,20}://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """One image as it came. `error` stands for an image that could not even be unwrapped, `url` for one that is still
    to be fetched."""

    data: bytes
    filename: str | None = None
    error: ServiceError | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    images: list[Upload]
    options: ClassifyOptions


def from_base64(text: str) -> Upload:
    """A base64 text or data URI; white space is allowed, anything else outside the alphabet is not. An address stands
    for the image that is to be fetched from there."""
    if ADDRESS.match(text):
        return Upload(b"", url=text)
    head = DATA_URI.match(text)
    body = text[head.end() :] if head else text
    try:
        return Upload(base64.b64decode("".join(body.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        return Upload(b"", error=ImageError(f"not base64 and no base64 data URI: {error}"))
