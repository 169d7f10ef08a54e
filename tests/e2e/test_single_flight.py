"""Many callers, one adaptation; real photos, sensible answers."""

from __future__ import annotations

import pytest

from benchmarks.process import ServiceProcess
from benchmarks.single_flight import rush
from tests.e2e.calls import LABELS, classify, ranking, upload

pytestmark = pytest.mark.slow


def test_64_concurrent_first_requests_cost_one_adaptation(service: ServiceProcess) -> None:
    before = service.metric("selftpt_adaptations_total")
    answers = rush(service, [*LABELS, "rush hour"], 64)
    assert [answer.status_code for answer in answers] == [200] * 64
    assert all(answer.json()["adapted"] for answer in answers)
    assert service.metric("selftpt_adaptations_total") - before == 1


def test_real_photos_are_recognised(service: ServiceProcess) -> None:
    label_set = upload(service, LABELS)["id"]
    best = [ranking(classify(service, label_set, image))[0][0] for image in ("cat", "coffee", "rocket")]
    assert best == ["cat", "cup of coffee", "rocket"]
