"""The dashboard about requests: objectives, where the time goes, queue, batches, device."""

from __future__ import annotations

from devices import device
from panels import Json, dashboard, panel
from queries import BUCKET, CLASSIFY, COUNT, JOB, ME, OF_ALL, STAGES, R, now, per, quantile, whole


def objectives() -> list[Json]:
    errors = f'sum(rate({COUNT}{{{CLASSIFY},status=~"5.."}}[{R}])) or vector(0)'
    return [
        panel(
            "stat",
            "Requests",
            "Classify requests a second.",
            "reqps",
            [(f"sum(rate({COUNT}{{{CLASSIFY}}}[{R}]))", "requests")],
            width=4,
            height=5,
        ),
        panel(
            "stat",
            "Images",
            "Images answered a second.",
            "ops",
            [(f'sum(rate(selftpt_images_total{{{ME},outcome="ok"}}[{R}]))', "images")],
            width=4,
            height=5,
        ),
        panel(
            "stat",
            "Errors",
            "Part of the classify requests that ended with a server error. Objective: below 0.5 %.",
            "percentunit",
            [(f"({errors}) / sum(rate({COUNT}{{{CLASSIFY}}}[{R}]))", "errors")],
            width=4,
            height=5,
            thresholds=[(0.005, "red")],
            decimals=2,
        ),
        panel(
            "stat",
            "Within 0.25 s",
            "Part of the successful classify requests answered within 0.25 s. Objective: 99 %.",
            "percentunit",
            [
                (
                    whole(BUCKET, f'{CLASSIFY},status=~"2..",le="0.25"')
                    + " / "
                    + whole(COUNT, f'{CLASSIFY},status=~"2.."'),
                    "fast",
                )
            ],
            width=4,
            height=5,
            decimals=2,
        ),
        panel(
            "stat",
            "Error budget burn, 1 h",
            "How many times faster than allowed the 30-day budget is spent. Above 14.4 somebody is called.",
            "none",
            [
                (f"selftpt:request_errors:ratio_rate1h{{{JOB}}} / 0.005", "errors"),
                (f"selftpt:requests_slow:ratio_rate1h{{{JOB}}} / 0.01", "slowness"),
            ],
            width=4,
            height=5,
            thresholds=[(1, "orange"), (14.4, "red")],
            decimals=1,
        ),
        panel(
            "stat",
            "Ready",
            "Instances whose last readiness check passed, of those that are scraped.",
            "none",
            [(f"sum(selftpt_ready{{{ME}}})", "ready"), (f"count(up{{{ME}}})", "scraped")],
            width=4,
            height=5,
        ),
        panel(
            "timeseries",
            "Latency",
            "Classify requests from first byte to last.",
            "s",
            [
                (quantile(share, "selftpt_request_duration_seconds", CLASSIFY), f"p{round(100 * share)}")
                for share in (0.5, 0.95, 0.99)
            ],
            width=12,
            minimum=0,
        ),
        panel(
            "timeseries",
            "Requests by status",
            "Everything the service answered, by status code.",
            "reqps",
            [(f"sum by (status) (rate({COUNT}{{{ME}}}[{R}]))", "{{status}}")],
            width=12,
            stacked=True,
            minimum=0,
        ),
    ]


def stages() -> list[Json]:
    total = f'sum(rate(selftpt_stage_duration_seconds_count{{{ME},stage="total"}}[{R}]))'
    return [
        panel(
            "timeseries",
            "Where the time goes",
            "The mean successful classify request, stage by stage; the stack is as high as the request is long.",
            "s",
            [
                (
                    per("stage", "selftpt_stage_duration_seconds_sum", f'{ME},stage=~"{STAGES}"') + OF_ALL + total,
                    "{{stage}}",
                )
            ],
            width=12,
            stacked=True,
            minimum=0,
        ),
        panel(
            "timeseries",
            "Stages, p99",
            "The slowest hundredth of each stage; these do not add up.",
            "s",
            [(quantile(0.99, "selftpt_stage_duration_seconds", f'{ME},stage=~"{STAGES}"', "le, stage"), "{{stage}}")],
            width=12,
            minimum=0,
        ),
        panel(
            "heatmap",
            "Latency, heat map",
            "How many classify requests a second fell into each bucket. Two bands are two kinds of request.",
            "s",
            [(f"sum by (le) (rate({BUCKET}{{{CLASSIFY}}}[{R}]))", "{{le}}")],
            width=12,
        ),
        panel(
            "timeseries",
            "Routes, p99",
            "The slowest hundredth by route. Uploads that wait for their adaptation are slow on purpose.",
            "s",
            [(quantile(0.99, "selftpt_request_duration_seconds", ME, "le, route"), "{{route}}")],
            width=12,
            minimum=0,
        ),
    ]


def queue() -> list[Json]:
    return [
        panel(
            "timeseries",
            "Queue",
            "Images and class states that wait for the device, and the limit of images.",
            "short",
            [
                (now("instance", "selftpt_queue_images"), "images {{instance}}"),
                (now("instance", "selftpt_queue_jobs"), "class states {{instance}}"),
                (f'max(selftpt_limit{{{ME},limit="max_waiting"}})', "limit of images"),
            ],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Oldest image",
            "How long the oldest image has waited. More than a batch takes means that the device cannot keep up.",
            "s",
            [(now("instance", "selftpt_queue_oldest_seconds", "max"), "{{instance}}")],
            minimum=0,
            thresholds=[(2, "red")],
        ),
        panel(
            "timeseries",
            "Refused",
            "Requests and images that were refused, by the limit that they ran into.",
            "reqps",
            [(per("reason", "selftpt_refused_total"), "{{reason}}")],
            stacked=True,
            minimum=0,
        ),
        panel(
            "timeseries",
            "In flight",
            "Requests being worked on.",
            "short",
            [(now("instance", "selftpt_in_flight_requests"), "{{instance}}")],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Hung up",
            "Classify requests whose caller went away before the answer.",
            "reqps",
            [(f"sum(rate(selftpt_cancelled_total{{{ME}}}[{R}]))", "hung up")],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Event loop",
            "How late the event loop comes to what is due (p90). Late means that something blocks it.",
            "s",
            [(quantile(0.9, "selftpt_event_loop_lag_seconds", ME, "le, instance"), "{{instance}}")],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Tasks",
            "On the event loop: requests, connections, own work. What grows without more requests is a leak.",
            "short",
            [(f"selftpt_event_loop_tasks{{{ME}}}", "{{instance}}")],
            minimum=0,
        ),
    ]


def latency() -> Json:
    rows = [
        ("Objectives", objectives()),
        ("Where the time goes", stages()),
        ("Queue and shedding", queue()),
        ("Batches and device", device()),
    ]
    about = "Classify requests: how fast, how many, what they wait for, and what was refused."
    return dashboard("selftpt-latency", "selftpt: latency", about, rows, {"label sets": "selftpt-label-sets"})
