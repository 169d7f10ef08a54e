"""What a classify request brings, whichever form its body had."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from service.errors import ImageError, ServiceError
from service.schemas import ClassifyOptions

DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """One image as it came. `error` stands for an image that could not even be unwrapped."""

    data: bytes
    filename: str | None = None
    error: ServiceError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    images: list[Upload]
    options: ClassifyOptions


def from_base64(text: str) -> Upload:
    """A base64 text or data URI; white space is allowed, anything else outside the alphabet is not."""
    head = DATA_URI.match(text)
    body = text[head.end() :] if head else text
    try:
        return Upload(base64.b64decode("".join(body.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        return Upload(b"", error=ImageError(f"not base64 and no base64 data URI: {error}"))
