"""A decision outlives the process that made it, and the first one stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adapters.engines.base import Decision, Finding, Kind
from adapters.engines.memory import Memory

DECISION = Decision(
    "onnxruntime", "fp32", 2, "measured", "twice as fast", 8,
    (Finding(Kind("onnxruntime", "fp32"), 1.0, 0.5, 1.0, 1.0, 1.0), Finding(Kind("torch", "bf16"), refused="no bf16")),
)  # fmt: skip


def test_a_kept_decision_is_recalled_with_its_figures(tmp_path: Path) -> None:
    assert Memory(tmp_path / "new").keep("key", DECISION) == DECISION
    assert Memory(tmp_path / "new").recall("key") == replace(DECISION, source="remembered")


def test_the_first_of_two_decisions_stays(tmp_path: Path) -> None:
    Memory(tmp_path).keep("key", DECISION)
    second = Memory(tmp_path).keep("key", replace(DECISION, engine="torch"))
    assert (second.engine, second.source) == ("onnxruntime", "remembered")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"engine": "torch"}', '{"findings": 3}', '{"findings": [], "x": 1}'])
def test_what_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path, content: str) -> None:
    (tmp_path / "choice-key.json").write_text(content, encoding="utf-8")
    memory = Memory(tmp_path)
    assert memory.recall("key") is None
    assert memory.keep("key", DECISION) == DECISION
    assert memory.recall("key") == replace(DECISION, source="remembered")


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.keep("key", DECISION)
    memory.forget("key")
    assert memory.recall("key") is None
