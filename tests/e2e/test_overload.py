"""Far more load than can be served, from strangers who do not wait for each other: the rest is refused, told when to
come back, and nothing grows."""

from __future__ import annotations

import pytest

from benchmarks.overload import SETTINGS, overload
from benchmarks.process import running_service

pytestmark = pytest.mark.slow


def test_under_far_too_much_load_the_service_refuses_the_rest_in_time_and_does_not_grow() -> None:
    with running_service(**SETTINGS, threads="1") as service:
        found = overload(service, seconds=4.0, factor=4.0, warm=2.0)
    seen = found.seen
    assert seen.unexpected == 0, seen.statuses
    assert seen.without_retry_after == 0
    assert seen.accepted
    assert seen.refused
    late = seen.statuses.get("504", 0)
    assert late <= 0.1 * len(seen.accepted), seen.statuses  # who was let in is answered
    assert seen.goodput > 0.25 * found.capacity  # a fraction that a busy test machine reaches, too
    assert found.growth.percent < 25
    assert found.growth.after.threads <= found.growth.before.threads + 4
    assert found.growth.after.tasks <= found.growth.before.tasks + 4
    assert found.churned > 0
