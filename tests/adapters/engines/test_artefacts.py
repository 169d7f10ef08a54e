"""Files that take long to make: made once, whole or not there, made again when damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapters.engines.artefacts import KEPT, Artefacts


class Maker:
    def __init__(self, content: bytes = b"tower") -> None:
        self.content, self.calls = content, 0

    def __call__(self, path: Path) -> None:
        self.calls += 1
        path.write_bytes(self.content)


def test_a_file_is_made_once(tmp_path: Path) -> None:
    make = Maker()
    paths = {Artefacts(tmp_path / "engines").get("a", ".onnx", make) for _ in range(3)}
    assert make.calls == 1
    assert [path.read_bytes() for path in paths] == [b"tower"]


@pytest.mark.parametrize("damage", [b"", b"towe", b"towes", b"tower and more"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes) -> None:
    make = Maker()
    path = Artefacts(tmp_path).get("a", ".onnx", make)
    path.write_bytes(damage)
    assert Artefacts(tmp_path).get("a", ".onnx", make).read_bytes() == b"tower"
    assert make.calls == 2


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("the exporter gave up")

    with pytest.raises(RuntimeError, match="gave up"):
        Artefacts(tmp_path).get("a", ".onnx", fail)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_make_the_same_end_with_one(tmp_path: Path) -> None:
    def slow(path: Path) -> None:
        Artefacts(tmp_path).get("a", ".onnx", Maker())  # the other one was quicker
        path.write_bytes(b"tower")

    assert Artefacts(tmp_path)._made("a", ".onnx", slow).read_bytes() == b"tower"
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_nobody_asks_for_go(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    for number in range(KEPT + 3):
        path = artefacts.get(f"tower-{number}", ".onnx", Maker(str(number).encode()))
        os.utime(path, (number, number))
    names = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert len(names) == KEPT
    assert names >= {f"tower-{KEPT + 2}", "tower-4"}
