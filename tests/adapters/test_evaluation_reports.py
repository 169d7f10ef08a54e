"""Journal, tables, plots and costs of an evaluation."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapters.evaluation.files import markdown_report, write_report
from adapters.evaluation.memory import MIB, peak_memory
from adapters.evaluation.metrics import BINS, reliability
from adapters.evaluation.plots import PlottingMissing, draw
from adapters.evaluation.records import Cost, Journal, Measured, current
from adapters.evaluation.tables import accuracy_table, base_to_new_table, cost_table, harmonic, table

BIN_ROWS = ((0.0, 0.0, 0.0),) * (BINS - 1) + ((10.0, 9.5, 8.0),)


def entry(
    method: str = "coop", set_name: str = "pets", *, seed: int = 1, top1: float = 50.0, **more: object
) -> Measured:
    facts: dict[str, object] = {
        "protocol": "few-shot", "source": set_name, "part": "all", "shots": 4, "backbone": "b", "images_digest": "i",
        "content": "c", "ece": 5.0, "images": 10, "classes": 2, "seconds": 1.5, "nbytes": 2048, "bins": BIN_ROWS,
    }  # fmt: skip
    return Measured(method=method, set_name=set_name, seed=seed, top1=top1, **{**facts, **more})  # type: ignore[arg-type]


def test_the_journal_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add(entry())
    journal.add(Cost("coop", "pets", 2, "c", fit_seconds=1.0))
    with (tmp_path / "measurements.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "Measured", "top1": 3')
    assert Journal(tmp_path).measured() == [entry()]
    assert Journal(tmp_path).costs()[0].fit_seconds == 1.0


def test_a_table_never_mixes_images_backbones_or_protocols() -> None:
    old, new = entry(top1=10.0, images_digest="old"), entry(top1=20.0)
    others = [entry(backbone="x"), entry(protocol="zero-shot"), entry("dapt", images_digest="old")]
    assert current([old, *others, new], "few-shot", "b") == [new]


def test_the_table_shows_mean_and_deviation_over_seeds_and_names_gaps() -> None:
    entries = [entry(seed=seed, top1=50.0 + seed) for seed in (1, 2, 3)]
    text = table([*entries, entry("tgp-t", skipped="no tokens")])
    assert "| coop | 52.0 ± 1.0 / 5.0 | - | 1.50 | 2 |" in text
    assert "| tgp-t | - | - | - | - |" in text
    assert "- tgp-t left out on pets: no tokens" in text


def test_several_shots_are_rows_of_their_own() -> None:
    text = accuracy_table([entry(shots=1), entry(shots=4), entry("single template", shots=0)])
    assert [line.split("|")[1:3] for line in text.splitlines()[2:]] == [
        [" coop ", " 1 "], [" coop ", " 4 "], [" single template ", " - "],
    ]  # fmt: skip


def test_base_and_new_come_with_their_harmonic_mean() -> None:
    assert harmonic(80.0, 60.0) == pytest.approx(68.571, abs=1e-3)
    base, new = entry(part="base", top1=80.0), entry(part="new", top1=60.0)
    closed = [entry("tgp-t", part="base", top1=90.0), entry("tgp-t", part="new", skipped="closed set")]
    text = base_to_new_table([base, new, *closed])
    assert "| coop | 80.0 / 60.0 / 68.6 | 80.0 / 60.0 / 68.6 | 5.0 / 5.0 | 1.50 |" in text
    assert "| tgp-t | 90.0 / - / - | - |" in text


def test_reliability_adds_up_to_all_images() -> None:
    logits, labels = torch.randn(50, 3), torch.randint(3, (50,))
    rows = reliability(logits, labels)
    assert sum(row[0] for row in rows) == 50
    assert sum(row[2] for row in rows) == int((logits.argmax(dim=1) == labels).sum())


def test_all_plots_are_written_where_matplotlib_is_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    entries = [entry(shots=shots, seed=seed, top1=40.0 + shots) for shots in (1, 4) for seed in (1, 2)]
    entries += [entry("single template", shots=0), entry("dapt", skipped="no")]
    costs = [Cost("coop", "pets", 2, "c", image_ms=20.0), Cost("tpt", "pets", 2, "c", skipped="too slow")]
    names = {file.name for file in draw(entries, costs, tmp_path)}
    assert names == {"accuracy.png", "reliability.png", "few_shot.png", "cost.png"}
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def test_without_matplotlib_the_report_is_written_and_the_reader_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what an import then sees is an absent package
    (remark,) = write_report(tmp_path, [entry()], [])
    assert "pip install 'self-tpt-service[eval]'" in remark
    assert "| coop |" in (tmp_path / "report.md").read_text(encoding="utf-8")
    with pytest.raises(PlottingMissing):
        draw([entry()], [], tmp_path)


def test_costs_stand_in_a_table_of_their_own() -> None:
    cost = Cost("coop", "pets", 2, "c", fit_seconds=3.0, nbytes=4096, fit_mib=120.0, image_ms=21.5, image_mib=4.0)
    assert "| coop | pets (2) | 3.00 | 4.0 | 21.5 | 120 | 4 |" in cost_table([cost])
    assert "out of memory" in markdown_report([entry()], [cost, replace(cost, method="x", skipped="out of memory")])


def test_peak_memory_sees_what_was_freed_again() -> None:
    with peak_memory() as peak:
        block = torch.ones(64 * MIB // 4)
        del block
    assert 50 < peak.rss_mib < 200
