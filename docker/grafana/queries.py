"""The few shapes of PromQL that the panels are made of."""

from __future__ import annotations

ME = 'job=~"$job",instance=~"$instance"'
CLASSIFY = f'{ME},route=~"/v1/classify|/models/.*|/v2/models/.*/infer"'
GOOD = f'{CLASSIFY},status=~"2.."'
JOB = 'job=~"$job"'
R = "$__rate_interval"
OF_ALL = " / on () group_left () "
"""Many series divided by one."""
STAGES = "receive|resolve|decode|queue|batch|forward|head|answer|encode"
COUNT = "selftpt_request_duration_seconds_count"
BUCKET = "selftpt_request_duration_seconds_bucket"


def per(by: str, name: str, labels: str = ME) -> str:
    """Of a counter, a second."""
    return f"sum by ({by}) (rate({name}{{{labels}}}[{R}]))"


def per_minute(by: str, name: str) -> str:
    return f"60 * {per(by, name)}"


def now(by: str, name: str, how: str = "sum") -> str:
    """Of a gauge."""
    return f"{how} by ({by}) ({name}{{{ME}}})"


def quantile(share: float, histogram: str, labels: str = ME, by: str = "le") -> str:
    return f"histogram_quantile({share}, sum by ({by}) (rate({histogram}_bucket{{{labels}}}[{R}])))"


def whole(name: str, labels: str = ME) -> str:
    """Of a counter, a second, all series together."""
    return f"sum(rate({name}{{{labels}}}[{R}]))"
