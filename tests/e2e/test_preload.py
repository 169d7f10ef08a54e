"""Warm start: what one process adapted, the next has ready before it says so, without any text pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.process import ServiceProcess
from tests.e2e.calls import LABELS, classify, upload

pytestmark = pytest.mark.slow


def test_a_preloaded_label_set_is_hot_at_readiness_and_costs_no_text_pass(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, {"threads": "1", "engine": "torch"}) as first:
        first.wait_ready()
        known = upload(first, LABELS, name="things")
        first.terminate()
        first.wait()
    settings = {"threads": "1", "engine": "torch", "preload": f"things,{known['id']}"}
    with ServiceProcess(tmp_path, settings) as second:
        second.wait_ready()
        assert second.metric("selftpt_hot_states") == 1
        assert classify(second, "things")["adapted"]
        assert second.metric("selftpt_text_forwards_total") == 0
        assert second.metric("selftpt_adaptations_total") == 0
