"""An artefact is complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapters.training.files import save


def test_what_is_saved_can_be_loaded_and_nothing_else_stays(tmp_path: Path) -> None:
    save({"rows": torch.eye(2)}, tmp_path / "teacher.pt")
    assert torch.load(tmp_path / "teacher.pt", weights_only=True)["rows"].equal(torch.eye(2))
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.pt"]


def test_a_failed_write_keeps_the_artefact_before(tmp_path: Path) -> None:
    save(1, tmp_path / "teacher.pt")
    with pytest.raises(Exception, match="pickle"):
        save(lambda: None, tmp_path / "teacher.pt")
    assert torch.load(tmp_path / "teacher.pt", weights_only=True) == 1
