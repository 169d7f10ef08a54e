"""Rows of the dashboard about requests: batches and the device that runs them."""

from __future__ import annotations

from panels import Json, panel
from queries import ME, OF_ALL, R, now, per, quantile

DEVICES = f'count(selftpt_device_alive{{{ME},part!="front-end"}})'
"""Front ends of a cluster have none; a service that is no cluster has no parts."""


def device() -> list[Json]:
    return [
        panel(
            "timeseries",
            "Images per batch",
            "A batch is what arrived while the last one ran: larger means busier.",
            "short",
            [
                (
                    per("instance", "selftpt_batch_size_sum") + " / " + per("instance", "selftpt_batch_size_count"),
                    "{{instance}}",
                ),
                (f'max(selftpt_limit{{{ME},limit="max_batch"}})', "limit"),
            ],
            minimum=0,
        ),
        panel(
            "heatmap",
            "Batch sizes",
            "How many batches a second had up to so many images.",
            "short",
            [(per("le", "selftpt_batch_size_bucket"), "{{le}}")],
        ),
        panel(
            "timeseries",
            "Tower passes",
            "Time of the image tower for one batch. It grows with the batch, and with what shares the device.",
            "s",
            [
                (quantile(0.5, "selftpt_forward_duration_seconds"), "p50"),
                (quantile(0.99, "selftpt_forward_duration_seconds"), "p99"),
            ],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Device time",
            "Part of the time that the device thread worked, by kind of work. At 100 % it is the bottleneck.",
            "percentunit",
            [
                (
                    per("work", "selftpt_device_busy_seconds_total") + OF_ALL + DEVICES,
                    "{{work}}",
                )
            ],
            stacked=True,
            minimum=0,
            maximum=1,
        ),
        panel(
            "timeseries",
            "Device memory",
            "In use, at most so far, and there. On a CPU: of the process, and of the machine.",
            "bytes",
            [(now("instance, kind", "selftpt_device_memory_bytes", "max"), "{{kind}} {{instance}}")],
            minimum=0,
        ),
        panel(
            "timeseries",
            "Images by outcome",
            "Answered, not decodable, or failed on the device.",
            "ops",
            [(per("outcome", "selftpt_images_total"), "{{outcome}}")],
            stacked=True,
            minimum=0,
        ),
        panel(
            "timeseries",
            "Process",
            "Processor time of the whole process, in cores.",
            "short",
            [(f"rate(process_cpu_seconds_total{{{ME}}}[{R}])", "cores {{instance}}")],
            minimum=0,
        ),
    ]
