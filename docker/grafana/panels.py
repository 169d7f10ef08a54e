"""Panels and dashboards of Grafana's classic JSON model, as plain dictionaries. Knows no metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 39
WIDTH = 24


def panel(kind: str, title: str, about: str, unit: str, queries: Sequence[tuple[str, str]], **options: Any) -> Json:
    """`queries`: pairs of expression and legend. `options`: width, height, stacked, minimum, maximum, decimals,
    thresholds (value and colour, rising), overrides of `custom`."""
    width, height = options.pop("width", 8), options.pop("height", 8)
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": height},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                **({"format": "heatmap"} if kind == "heatmap" else {}),
            }
            for index, (expression, legend) in enumerate(queries)
        ],
        "fieldConfig": {"defaults": _defaults(kind, unit, options), "overrides": []},
        "options": _options(kind, unit),
    }


def _defaults(kind: str, unit: str, options: Json) -> Json:
    steps = [{"color": "green", "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in options.get("thresholds", ())]
    found: Json = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}
    for name, key in (("minimum", "min"), ("maximum", "max"), ("decimals", "decimals"), ("mappings", "mappings")):
        if name in options:
            found[key] = options[name]
    if kind == "timeseries":
        stacked = options.get("stacked", False)
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 70 if stacked else 8,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if options.get("thresholds") else "off"},
        }
        found["color"] = {"mode": "palette-classic"}
    return found


def _options(kind: str, unit: str) -> Json:
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value",
                "graphMode": "area", "textMode": "auto"}  # fmt: skip
    if kind == "heatmap":
        return {"calculate": False, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                "yAxis": {"unit": unit, "axisPlacement": "left"}, "cellGap": 1, "tooltip": {"mode": "single"},
                "legend": {"show": True}}  # fmt: skip
    if kind == "table":
        return {"showHeader": True}
    return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"}}  # fmt: skip


def dashboard(
    uid: str, title: str, about: str, rows: Sequence[tuple[str, Sequence[Json]]], links: dict[str, str]
) -> Json:
    """Lays the panels of each row out from left to right; `links` are uids of sister dashboards by title."""
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["selftpt"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "link",
                "title": name,
                "url": f"/d/{other}",
                "keepTime": True,
                "includeVars": True,
                "icon": "dashboard",
            }
            for name, other in links.items()
        ],
        "templating": {"list": variables()},
        "annotations": {"list": [_restarts()]},
        "panels": _laid_out(rows),
    }


def variables() -> list[Json]:
    def chosen(name: str, label: str, query: str) -> Json:
        return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1,
                "query": {"query": query, "refId": name}, "includeAll": True, "multi": True, "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]}}  # fmt: skip

    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
              "current": {}}  # fmt: skip
    return [
        source,
        chosen("job", "Job", "label_values(selftpt_build_info, job)"),
        chosen("instance", "Instance", 'label_values(selftpt_build_info{job=~"$job"}, instance)'),
    ]


def _restarts() -> Json:
    return {"name": "Restarts", "enable": True, "iconColor": "orange", "datasource": SOURCE, "titleFormat": "Restart",
            "expr": 'changes(process_start_time_seconds{job=~"$job",instance=~"$instance"}[1m]) > 0'}  # fmt: skip


def _laid_out(rows: Sequence[tuple[str, Sequence[Json]]]) -> list[Json]:
    found: list[Json] = []
    y = 0
    for title, panels in rows:
        found.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                      "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})  # fmt: skip
        x, y, tallest = 0, y + 1, 0
        for one in panels:
            width, height = one["gridPos"]["w"], one["gridPos"]["h"]
            if x + width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            found.append({**one, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
            x, tallest = x + width, max(tallest, height)
        y += tallest
    return [{"id": number, **one} for number, one in enumerate(found, start=1)]
