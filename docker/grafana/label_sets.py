"""The dashboard about label sets: caches, adaptations, workers, stores, drift."""

from __future__ import annotations

from panels import Json, dashboard, panel
from queries import JOB, ME, R, now, per, per_minute, quantile, whole

YES_NO = [{"type": "value", "options": {"0": {"text": "no", "color": "red"}, "1": {"text": "yes", "color": "green"}}}]


def caches() -> list[Json]:
    def ratio(name: str, by: str) -> str:
        return f'sum by ({by}) (rate({name}{{{ME},result="hit"}}[{R}])) / sum by ({by}) (rate({name}{{{ME}}}[{R}]))'

    return [
        panel(
            "timeseries",
            "Class states found",
            "Part of the look-ups that each tier answered: the hot table first, then memory, then the durable store.",
            "percentunit",
            [(ratio("selftpt_state_lookups_total", "tier"), "{{tier}}")],
            minimum=0,
            maximum=1,
        ),
        panel(
            "timeseries",
            "Look-ups",
            "Look-ups of class states by tier and result. Errors and damage mean computing again.",
            "ops",
            [(per("tier, result", "selftpt_state_lookups_total"), "{{tier}} {{result}}")],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Tower caches",
            "Part of the look-ups answered by caches of image embeddings and class features.",
            "percentunit",
            [(ratio("selftpt_cache_lookups_total", "cache"), "{{cache}}")],
            minimum=0,
            maximum=1,
        ),
        panel(
            "timeseries",
            "Bytes kept",
            "Decoded class states, and what the tower caches hold.",
            "bytes",
            [
                (now("instance", "selftpt_hot_bytes"), "class states {{instance}}"),
                (now("instance, cache", "selftpt_cache_bytes"), "{{cache}} {{instance}}"),
            ],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Class states ready",
            "Decoded class states kept ready for scoring.",
            "short",
            [(now("instance", "selftpt_hot_states"), "{{instance}}")],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Text passes",
            "Prompts passed through the text tower a second. Zero while all label sets are known.",
            "ops",
            [(per("instance", "selftpt_text_forwards_total"), "{{instance}}")],
            minimum=0,
        ),
    ]


def adaptations() -> list[Json]:
    phases = "selftpt_adaptation_duration_seconds"
    return [
        panel(
            "timeseries",
            "Adaptations ended",
            "By outcome, per minute.",
            "cpm",
            [(per_minute("outcome", "selftpt_adaptations_total"), "{{outcome}}")],
            stacked=True,
            minimum=0,
        ),
        panel(
            "timeseries",
            "Under way",
            "Adaptations that wait for the device or are on it, and the limit.",
            "short",
            [
                (now("instance", "selftpt_adaptations_running"), "{{instance}}"),
                (f'max(selftpt_limit{{{ME},limit="max_adaptations"}})', "limit"),
            ],
            minimum=0,
        ),
        panel(
            "timeseries",
            "How long, by phase",
            "Median and p95 of waiting for the device, adapting and storing.",
            "s",
            [
                (quantile(0.5, phases, ME, "le, phase"), "{{phase}} p50"),
                (quantile(0.95, phases, ME, "le, phase"), "{{phase}} p95"),
            ],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Joined",
            "Requests that joined a class state which was being computed: each would have computed it once more.",
            "ops",
            [(per("instance", "selftpt_coalesced_waiters_total"), "{{instance}}")],
            minimum=0,
        ),
        panel(
            "timeseries",
            "By method",
            "Adaptations ended per minute, by method.",
            "cpm",
            [(per_minute("adapter", "selftpt_adaptations_total"), "{{adapter}}")],
            stacked=True,
            minimum=0,
        ),
        panel(
            "timeseries",
            "Plain zero-shot states",
            "Computed for requests that came before their adaptation was ready, per minute.",
            "cpm",
            [(per_minute("outcome", "selftpt_zero_shot_states_total"), "{{outcome}}")],
            stacked=True,
            minimum=0,
        ),
    ]


def workers() -> list[Json]:
    return [
        panel(
            "stat",
            "Device threads",
            "Whether the device thread of each instance takes work.",
            "none",
            [(f"selftpt_device_alive{{{ME}}}", "{{instance}}")],
            width=6,
            height=6,
            mappings=YES_NO,
        ),
        panel(
            "stat",
            "Dependencies",
            "Whether the store of each instance answers.",
            "none",
            [(f"selftpt_dependency_up{{{ME}}}", "{{dependency}} {{instance}}")],
            width=6,
            height=6,
            mappings=YES_NO,
        ),
        panel(
            "timeseries",
            "Heartbeat",
            "Since a worker last got on with its work; 0 while it has none.",
            "s",
            [(f"selftpt_worker_heartbeat_age_seconds{{{ME}}}", "{{worker}} {{instance}}")],
            width=6,
            height=6,
            minimum=0,
            thresholds=[(60, "red")],
        ),
        panel(
            "timeseries",
            "Leases",
            "Leases on adaptations across processes, per minute. Lost and fenced ones mean that a process was held up.",
            "cpm",
            [(per_minute("event", "selftpt_leases_total"), "{{event}}")],
            width=6,
            height=6,
            minimum=0,
        ),
        panel(
            "timeseries",
            "Dependency errors",
            "Calls of a store that failed or were skipped as it was down.",
            "ops",
            [(per("dependency", "selftpt_dependency_errors_total"), "{{dependency}}")],
            width=8,
            height=6,
            minimum=0,
        ),
        panel(
            "timeseries",
            "Device restarts",
            "How often a device thread died and was started again, per minute.",
            "cpm",
            [(per_minute("instance", "selftpt_device_restarts_total"), "{{instance}}")],
            width=8,
            height=6,
            minimum=0,
        ),
        panel(
            "timeseries",
            "Replicas",
            "Front ends and workers of a cluster that answered the scrape. Nothing, where there is no cluster.",
            "short",
            [(f"max by (part) (selftpt_replicas{{{JOB}}})", "{{part}}")],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Adaptations by worker",
            "What workers of a cluster adapted for front ends, per minute. Refused and left ones are tried elsewhere.",
            "cpm",
            [(per_minute("instance, outcome", "selftpt_worker_adaptations_total"), "{{outcome}} {{instance}}")],
            minimum=0,
        ),
        panel("table", "Build", "What runs where.", "none", [(f"selftpt_build_info{{{ME}}}", "")], width=8, height=6),
    ]


def drift() -> list[Json]:
    score, answers = "selftpt_top1_score", "selftpt_predictions_total"
    return [
        panel(
            "timeseries",
            "Score of the best class",
            "Median and tenth percentile. A fall without a change of label sets means that the images have changed.",
            "percentunit",
            [(quantile(0.5, score), "median"), (quantile(0.1, score), "p10")],
            minimum=0,
            maximum=1,
        ),
        panel(
            "timeseries",
            "By method",
            "Median score of the best class, by the method that served it.",
            "percentunit",
            [(quantile(0.5, score, ME, "le, adapter"), "{{adapter}}")],
            minimum=0,
            maximum=1,
        ),
        panel(
            "timeseries",
            "Rejected",
            "Part of the answers below the threshold that their request set.",
            "percentunit",
            [
                (
                    whole(answers, f'{ME},outcome="rejected"') + " / " + whole(answers),
                    "rejected",
                )
            ],
            minimum=0,
            maximum=1,
        ),
    ]


def label_sets() -> Json:
    rows = [("Caches", caches()), ("Adaptations", adaptations()), ("Workers and stores", workers()), ("Drift", drift())]
    about = "Label sets: what is found and what is computed, who computes it, and whether scores drift."
    return dashboard("selftpt-label-sets", "selftpt: label sets", about, rows, {"latency": "selftpt-latency"})
