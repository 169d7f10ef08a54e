"""The parts of the benchmarks that could make their figures wrong without anybody noticing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.growth import Size, slope
from benchmarks.load import Outcome
from benchmarks.names import class_names
from benchmarks.overload import bucket_quantile
from benchmarks.raw_http import prepared


def test_class_names_are_distinct_and_new_for_every_salt() -> None:
    sets = [class_names(1000, salt=salt) for salt in range(50)]
    assert all(len(set(names)) == 1000 for names in sets)
    assert len({tuple(names) for names in sets}) == 50


def test_class_names_from_a_file_differ_by_salt_too(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("cat\n\n dog \nbird\n", encoding="utf-8")
    assert class_names(3, file=file) == ["cat", "dog", "bird"]
    assert class_names(2, salt=7, file=file) == ["cat", "dog 7"]
    with pytest.raises(ValueError, match="holds 3 names"):
        class_names(4, file=file)


def test_a_prepared_request_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"jpeg bytes")
    (request,) = prepared(8000, "/v1/classify?label_set=x", (str(tmp_path / "a.jpg"),))
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/classify?label_set=x HTTP/1.1\r\n")
    assert b"Content-Length: 10" in head
    assert body == b"jpeg bytes"


def test_quantiles_come_from_what_was_measured() -> None:
    outcome = Outcome(tuple(range(100, 0, -1)), seconds=2.0, failures=0)
    assert (outcome.quantile(0.5), outcome.quantile(0.95), outcome.quantile(1.0)) == (51, 96, 100)
    assert outcome.rate == 50


def test_the_slope_of_memory_is_by_the_hour_and_a_histogram_tells_what_was_added() -> None:
    sizes = [Size(when, mib=100 + when / 36, files=1, threads=1, tasks=1) for when in range(0, 360, 10)]
    assert slope(sizes) == pytest.approx(100)
    early, late = {0.01: 90.0, 0.1: 100.0, math.inf: 100.0}, {0.01: 91.0, 0.1: 199.0, math.inf: 200.0}
    assert bucket_quantile(late, early, 0.99) == 0.1
    assert math.isnan(bucket_quantile(early, early, 0.99))
