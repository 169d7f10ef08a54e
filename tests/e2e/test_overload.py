"""Twice the load that can be served, from strangers who do not wait for each other: the rest is refused, told when to
come back, and nothing grows."""

from __future__ import annotations

import pytest

from benchmarks.process import running_service
from benchmarks.soak import SETTINGS, soak

pytestmark = pytest.mark.slow


def test_under_twice_the_capacity_the_service_refuses_the_rest_and_does_not_grow() -> None:
    with running_service(**SETTINGS, threads="1", max_in_flight="32") as service:
        found = soak(service, seconds=4.0, warm=2.0)
    seen = found.seen
    assert seen.unexpected == 0, seen.statuses
    assert seen.without_retry_after == 0
    assert seen.accepted
    assert seen.refused
    assert seen.goodput > 0.25 * found.capacity  # a fraction that a busy test machine reaches, too
    assert found.growth < 25
    assert found.after.threads <= found.before.threads + 4
    assert found.churned > 0
