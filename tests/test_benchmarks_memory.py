"""The memory benchmark's own rules: what exceeds the limit is stopped, what is hopeless is not tried."""

from __future__ import annotations

import argparse

from adapters.text.layout import lay_out
from benchmarks import memory
from benchmarks.memory_cell import Cell, Task, padded, prepared
from benchmarks.names import class_names
from tests.conftest import make_tiny_backbone


def test_a_cell_above_the_limit_is_stopped_and_says_so() -> None:
    task = Task("bundled", "chunked", 10, 1)
    assert memory.run_cell(task, limit=0.02, timeout=60) == "did not fit in 0.02 GiB"
    assert memory.run_cell(task, limit=8, timeout=0) == "not finished after 0 s"


def test_what_the_smaller_cells_rule_out_is_not_tried() -> None:
    found: list[tuple[int, Cell | str]] = [(100, Cell(2048.0, 0.0, 1.0))]
    assert memory._expected(found, 1000) == 20480.0
    arguments = argparse.Namespace(classes=[], limit=8, timeout=1, threads=1)
    assert memory.cells("bundled", "full", arguments) == []
    assert memory.shown(Cell(20.4, 0.0, 1.0)) == "20 (1.0 s)"


def test_every_way_makes_a_step_and_full_prompts_are_as_long_as_the_context() -> None:
    backbone = make_tiny_backbone()
    for way in memory.WAYS:
        prepared(Task("tiny", way, 5, 1), backbone)()
    text = backbone.text
    names = [text.tokens(name) for name in class_names(3)]
    short = lay_out(names, context=4, position="end", stop=text.tokens("."), sot=text.sot, eot=text.eot)
    assert padded(short, 24).ids_NL.shape == (3, 24)
