"""From the `Authorization` header to a caller. The file is read again when it changed; a broken one changes nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from service.errors import Unauthorized
from service.security.callers import CLASS_STEPS, IMAGES, Caller
from service.security.key_file import KeyFileError, read_keys
from service.security.keys import NO_SALT, TOKEN, ApiKey, secret_hash, utc_now
from service.security.rates import Meter

_log = logging.getLogger("selftpt.audit")

LOOK_EVERY = 1.0
"""Seconds between two looks at the file's time: so long does a revoked key still work."""


class Keyring:
    """Raises `KeyFileError` when the file cannot be used at start."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._stamp = self._stamped()
        self._keys: Mapping[str, ApiKey] = read_keys(path)
        self._callers = {one: caller_of(key) for one, key in self._keys.items()}
        self._looked = clock()

    @property
    def tenants(self) -> list[str]:
        return sorted({key.tenant for key in self._keys.values()})

    def caller(self, authorization: str | None) -> Caller:
        """Raises `Unauthorized`, in the same words for an unknown id, a wrong secret, a revoked and an expired key."""
        self._look()
        if not authorization:
            raise Unauthorized("this service asks for an API key: Authorization: Bearer <key>")
        scheme, _, token = authorization.partition(" ")
        given = TOKEN.fullmatch(token.strip()) if scheme.lower() == "bearer" else None
        if given is None:
            raise Unauthorized("the Authorization header holds no API key of this service", invalid=True)
        key = self._keys.get(given[1])
        # An unknown id costs what a wrong secret costs, so that the time does not tell which ids there are.
        opened = key.opens(given[2]) if key is not None else not secret_hash(NO_SALT, given[2])
        if key is None or not opened or not key.valid(utc_now()):
            raise Unauthorized("this API key is not valid", invalid=True)
        return self._callers[key.id]

    def reload(self) -> None:
        """Quotas that did not change keep what was used of them."""
        stamp = self._stamped()
        try:
            keys = read_keys(self._path)
        except KeyFileError as error:
            _log.error("API keys were not read again; the former ones hold", extra={"error": str(error)})
        else:
            known = self._callers
            self._callers = {
                one: known[one] if key == self._keys.get(one) else caller_of(key, known.get(one))
                for one, key in keys.items()
            }
            self._keys = keys
            _log.info("API keys read again", extra={"keys": len(keys)})
        self._stamp = stamp

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        if self._stamped() != self._stamp:
            self.reload()

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def caller_of(key: ApiKey, before: Caller | None = None) -> Caller:
    quotas = {IMAGES: key.images_per_minute, CLASS_STEPS: key.class_steps_per_minute}
    meters: dict[str, Meter] = {}
    for name, quota in quotas.items():
        former = before.meters.get(name) if before is not None else None
        if quota is not None:
            meters[name] = former if former is not None and former.quota == quota else Meter(name, quota)
    return Caller(key.id, key.tenant, key.scopes, meters)
