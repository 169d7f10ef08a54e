"""The dashboards in the words of Grafana's own schema: what its types do not know, they would lose on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import panelcfg_config
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.monitoring.tools import DASHBOARDS, panels

by_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
BEYOND_SCHEMA = {"annotations.list[0].titleFormat"}
"""Belongs to annotations of the Prometheus data source, which the schema leaves to it."""


@pytest.fixture(scope="module", autouse=True)
def panel_types() -> None:
    plugins.register_default_plugins()


def lost(given: Any, kept: Any, place: str = "") -> Iterator[str]:
    """Where something in `given` is not the same in `kept`."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            yield from lost(value, kept.get(name), f"{place}.{name}" if place else name)
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{place}[{number}]")
    elif given != kept:
        yield place


@by_dashboard
def test_grafanas_types_keep_everything_that_a_dashboard_says(path: Path) -> None:
    given = json.loads(path.read_text(encoding="utf-8"))
    kept = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
    assert set(lost(given, kept)) == BEYOND_SCHEMA


@by_dashboard
def test_grafanas_types_know_every_kind_of_panel_and_its_options(path: Path) -> None:
    for panel in panels(path):
        kind = panelcfg_config(panel["type"])
        assert kind is not None, panel["type"]
        assert kind.options_from_json_hook is not None
        parsed = kind.options_from_json_hook(panel["options"])
        assert set(lost(panel["options"], json.loads(JSONEncoder().encode(parsed)))) == set(), panel["title"]
