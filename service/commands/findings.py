"""What `selftpt doctor` finds: a level, a fact, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from service.settings import Settings

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` says what to do; it is empty when all is well."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    fact: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]
