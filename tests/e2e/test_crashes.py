"""kill -9 at random moments amid uploads and images, and with adaptations queued: nothing acknowledged is lost, queued
work is taken up again by itself, and what was done is not done twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.chaos import Crashes, status
from benchmarks.names import class_names
from benchmarks.process import ServiceProcess
from tests.e2e.calls import upload, wait_until

pytestmark = pytest.mark.slow

SETTINGS = {"threads": "1", "adapter": "self-tpt"}
CRASHES = 3


def test_every_acknowledged_label_set_outlives_a_crash_loop_and_answers_stay_the_same(tmp_path: Path) -> None:
    random.seed(0)
    crashes = Crashes(tmp_path, longest=0.6, connections=1)
    acknowledged = sum(crashes.crash() for _ in range(CRASHES))
    watched, ready = crashes.recovered(seconds=60.0, sample=3)
    assert acknowledged > 0
    assert crashes.lost == []
    assert ready == watched > 0
    assert crashes.answers.statuses.get(200, 0) > 0
    assert (crashes.answers.forbidden, crashes.answers.changed) == (0, 0)


def test_adaptations_that_were_queued_at_a_crash_are_taken_up_and_none_is_done_twice(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, SETTINGS) as service:
        service.wait_ready()
        label_sets = [upload(service, class_names(60, salt=one), wait=0)["id"] for one in range(3)]
        service.kill()
    with ServiceProcess(tmp_path, SETTINGS) as service:
        service.wait_ready()
        wait_until(lambda: all(status(service, one) == "ready" for one in label_sets), seconds=60.0)
        done = service.metric("selftpt_adaptations_total")
        assert 2 <= done <= 3  # the first may have been stored before the kill
