"""SIGTERM amid more work than the shutdown's patience allows: everybody is answered, and the process ends cleanly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from benchmarks.process import ServiceProcess
from tests.e2e.calls import photo, wait_until

pytestmark = pytest.mark.slow

CALLERS, IMAGES = 6, 48


def ask(service: ServiceProcess) -> httpx.Response:
    files = [("images", ("cat.jpg", photo("cat"), "image/jpeg"))] * IMAGES
    return httpx.post(f"{service.url}/v1/classify", files=files, data={"labels": ["cat", "dog"]}, timeout=60)


def test_an_impatient_shutdown_answers_everyone_and_does_not_crash(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, {"threads": "1", "shutdown_timeout": "1"}) as service:
        service.wait_ready()
        with ThreadPoolExecutor(CALLERS) as pool:
            asked = [pool.submit(ask, service) for _ in range(CALLERS)]
            wait_until(lambda: service.metric("selftpt_in_flight_requests") > CALLERS)  # that request counts, too
            service.terminate()
            answers = [one.result() for one in asked]
        exit_code = service.wait()
    assert exit_code in (0, 1)
    assert {answer.status_code for answer in answers} <= {200, 503}
    for refused in (answer for answer in answers if answer.status_code == 503):
        assert refused.json()["type"] == "/problems/shutting-down"
