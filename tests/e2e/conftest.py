"""The real service in real processes. Whatever a test does to them, none is left behind, and a failing test shows their
logs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.process import ServiceProcess, running_service
from tests.e2e.calls import Launch


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts a service on a data directory (by name) without waiting for it: `launch("a", redis_url=...)`."""
    with ExitStack() as stack:
        services: list[ServiceProcess] = []

        def start(folder: str = "data", **settings: str) -> ServiceProcess:
            data_dir = tmp_path / folder
            data_dir.mkdir(exist_ok=True)
            services.append(ServiceProcess(data_dir, {"threads": "1", **settings}))
            return stack.enter_context(services[-1])

        yield start
        for service in services:
            sys.stdout.write(f"--- log of {service.url}\n{service.log_text()}\n")


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    """One service for the tests of a module that do it no harm."""
    with running_service(threads="1") as running:
        yield running
        sys.stdout.write(running.log_text())
