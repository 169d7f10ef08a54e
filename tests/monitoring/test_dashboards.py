"""The Grafana dashboards: as generated, explained, and about metrics that exist."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.monitoring.tools import DASHBOARDS, DOCKER, exported, expressions, names_in, panels, promtool, recorded

by_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
ROWS = {
    "selftpt-latency": ["Objectives", "Where the time goes", "Queue and shedding", "Batches and device"],
    "selftpt-label-sets": ["Caches", "Adaptations", "Workers and stores", "Drift"],
}


def test_the_committed_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(DOCKER / "grafana/generate.py"), str(tmp_path)], check=True, timeout=60)
    assert [path.name for path in DASHBOARDS] == sorted(path.name for path in tmp_path.iterdir())
    for path in DASHBOARDS:
        assert path.read_text(encoding="utf-8") == (tmp_path / path.name).read_text(encoding="utf-8"), path.name


@by_dashboard
def test_every_panel_has_title_description_unit_and_place(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(path):
        place = panel["gridPos"]
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        squares = {(place["x"] + right, place["y"] + down) for right in range(place["w"]) for down in range(place["h"])}
        assert not squares & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= squares


@by_dashboard
def test_rows_variables_and_identity_are_there(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [panel["title"] for panel in content["panels"] if panel["type"] == "row"] == ROWS[content["uid"]]
    assert {variable["name"] for variable in content["templating"]["list"]} == {"datasource", "job", "instance"}
    assert content["uid"] == path.stem
    assert len({panel["id"] for panel in content["panels"]}) == len(content["panels"])
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels(path))


def test_expressions_ask_for_metrics_that_the_service_exports() -> None:
    known = exported() | recorded()
    for title, expression in expressions():
        found = names_in(expression)
        assert found, title
        assert found <= known, (title, found - known)


def test_nearly_every_metric_is_on_a_dashboard() -> None:
    shown = {name for _, expression in expressions() for name in names_in(expression)}
    own = {name for name in exported() if name.startswith("selftpt_")}
    families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in own - shown}
    shown_families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in shown}
    assert families - shown_families == set()


def test_promtool_reads_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": one} for number, (_, one) in enumerate(expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_grafana_finds_its_source_and_its_dashboards() -> None:
    provisioning = DOCKER / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/selftpt.yaml").read_text())["providers"]
    services = yaml.safe_load((DOCKER / "grafana/compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert source["url"] == "http://prometheus:9090"
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert all((DOCKER / mount).exists() for mount in mounts if mount.startswith("."))
