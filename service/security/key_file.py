"""The file of API keys: JSON, written whole and moved into place, never readable by others than its owner and group."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from service.security.keys import ApiKey

MAX_FILE_BYTES = 16 * 1024 * 1024


class KeyFileError(OSError):
    """The file of API keys cannot be used; the text says why."""


class KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: list[ApiKey]


def read_keys(path: Path) -> Mapping[str, ApiKey]:
    """Keys by id. Raises `KeyFileError`; a file that others can write is refused, for they could add keys."""
    try:
        found = path.stat()
        if os.name == "posix" and found.st_mode & stat.S_IWOTH:
            raise KeyFileError(f"{path} can be written by everybody: chmod o-w it")
        if found.st_size > MAX_FILE_BYTES:
            raise KeyFileError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        content = KeyFile.model_validate_json(path.read_bytes())
    except KeyFileError:
        raise
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise KeyFileError(f"{path} is no file of API keys: {place}: {first['msg']}") from None
    keys = {key.id: key for key in content.keys}
    if len(keys) != len(content.keys):
        raise KeyFileError(f"{path} has a key id twice")
    return keys


def write_keys(path: Path, keys: Iterable[ApiKey]) -> None:
    """All or nothing: a reader never sees half a file."""
    content = KeyFile(keys=list(keys)).model_dump(mode="json")
    for entry in content["keys"]:
        entry["scopes"].sort()
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(json.dumps(content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
            if path.exists():
                os.chmod(file.name, stat.S_IMODE(path.stat().st_mode))
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise
