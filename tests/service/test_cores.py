"""How many cores are there: what control groups and the processor's topology say, in files made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.process.cores import compute_cores, mask, physical, quota, usable_cores


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({}, "0::/\n", float("inf")),
        ({"cpu.max": "max 100000\n"}, "0::/\n", float("inf")),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "max 100000\n", "a/b/cpu.max": "200000 100000\n"}, "0::/a/b\n", 2.0),
        ({"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "400000 100000\n"}, "0::/a/b\n", 1.0),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/x\n", 2.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/x\n", float("inf")),
    ],
)
def test_the_least_quota_on_the_way_up_counts(
    tmp_path: Path, files: dict[str, str], membership: str, cores: float
) -> None:
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text)
    write(tmp_path / "self", membership)
    assert quota(tmp_path / "cgroup", tmp_path / "self") == cores


def test_second_threads_of_a_core_are_not_counted(tmp_path: Path) -> None:
    for cpu in range(4):
        write(tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list", f"{cpu % 2},{cpu % 2 + 2}\n")
    assert physical({0, 1, 2, 3}, tmp_path) == 2
    assert physical({0, 2}, tmp_path) == 1
    assert physical({7, 8, 9}, tmp_path) == 3  # nothing is known of these


def test_there_is_always_a_core_and_never_more_than_the_mask_has() -> None:
    assert 1 <= compute_cores() <= usable_cores() <= len(mask())
