"""API keys as they are given out and as they are kept: `stpt_<id>_<secret>`, and a salted hash of the secret.

A secret is 256 random bits, so one HMAC is as good as a slow hash: there is nothing to guess, and nobody can make the
service burn time by sending wrong keys.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Scope = Literal["classify", "label-sets", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = ("classify", "label-sets", "metrics", "admin")

DEFAULT_TENANT = "default"
Tenant = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
TOKEN = re.compile(r"stpt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
NO_SALT = bytes(16)


class ApiKey(BaseModel):
    """One line of the keys file. Quotas are per minute; None sets none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tenant: Tenant = DEFAULT_TENANT
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    images_per_minute: Annotated[int, Field(ge=1)] | None = None
    class_steps_per_minute: Annotated[int, Field(ge=1)] | None = None
    note: Annotated[str, Field(max_length=200)] = ""
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def valid(self, now: datetime) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)

    def opens(self, secret: str) -> bool:
        """Takes the same time whatever is wrong with the secret."""
        return hmac.compare_digest(secret_hash(bytes.fromhex(self.salt), secret), self.hash)


def secret_hash(salt: bytes, secret: str) -> str:
    return hmac.new(salt, secret.encode(), hashlib.sha256).hexdigest()


def new_key(
    scopes: frozenset[Scope],
    *,
    tenant: str = DEFAULT_TENANT,
    images_per_minute: int | None = None,
    class_steps_per_minute: int | None = None,
    note: str = "",
    expires: datetime | None = None,
) -> tuple[ApiKey, str]:
    """The key to keep, and the token to give out, which cannot be had again."""
    one, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_bytes(16)
    key = ApiKey(
        id=one,
        salt=salt.hex(),
        hash=secret_hash(salt, secret),
        tenant=tenant,
        scopes=scopes,
        images_per_minute=images_per_minute,
        class_steps_per_minute=class_steps_per_minute,
        note=note,
        created=utc_now(),
        expires=expires,
    )
    return key, f"stpt_{one}_{secret}"


def utc_now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)
