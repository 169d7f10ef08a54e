"""What a test needs of the machine. Its absence is a named skip, and in CI (`CI=true`) a failure."""

from __future__ import annotations

import os

import pytest


def missing(reason: str) -> BaseException:
    """To be raised."""
    in_ci = os.environ.get("CI", "").lower() in {"1", "true"}
    return pytest.fail.Exception(reason) if in_ci else pytest.skip.Exception(reason)
