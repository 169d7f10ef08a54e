"""Recording and alert rules: sound, tested, explained, and about metrics that exist."""

from __future__ import annotations

import re

from service.telemetry.metrics import BUCKETS
from tests.monitoring.tools import PROMETHEUS, exported, names_in, promtool, recorded, rules

ALERTS = rules("alerts.yml")
RUNBOOK = (PROMETHEUS.parents[1] / "docs/operations.md").read_text(encoding="utf-8")


def test_promtool_accepts_configuration_and_rules() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_the_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


def test_rules_ask_for_metrics_that_exist() -> None:
    known = exported() | recorded()
    for rule in [*ALERTS, *rules("recording.yml")]:
        found = names_in(rule["expr"])
        assert found, rule
        assert found <= known, (rule, found - known)


def test_the_latency_objective_is_a_bucket() -> None:
    text = (PROMETHEUS / "recording.yml").read_text(encoding="utf-8")
    asked = {float(bound) for bound in re.findall(r'le="([\d.]+)"', text)}
    assert asked
    assert asked <= set(BUCKETS)


def test_each_alert_has_a_severity_a_summary_and_a_section_in_the_runbook() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]
        page, _, section = alert["annotations"]["runbook_url"].partition("#")
        assert (page, section) == ("docs/operations.md", alert["alert"].lower())
        assert f"### {alert['alert']}\n" in RUNBOOK, alert["alert"]
    told = set(re.findall(r"^### (Selftpt\w+)$", RUNBOOK, re.MULTILINE))
    assert told == {alert["alert"] for alert in ALERTS}


def test_each_section_says_what_it_means_why_and_what_to_do() -> None:
    for section in re.split(r"^### (?=Selftpt)", RUNBOOK, flags=re.MULTILINE)[1:]:
        body = section.split("\n## ")[0]
        assert all(f"**{part}**" in body for part in ("Meaning.", "Cause.", "Action.")), section[:40]
