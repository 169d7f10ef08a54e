"""The real service in a real process; none is left behind, and a failing test shows its log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.process import ServiceProcess, running_service


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    """One service for the tests of a module that do it no harm."""
    with running_service(threads="1") as running:
        yield running
