"""The choice of an engine: by measurement, only what agrees, remembered, and never in the way of a start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapters.clip import Backbone
from adapters.engines.base import REFERENCE, Finding, Kind
from adapters.engines.choice import Failure, Wanted, attempt, choose_engine, pick
from adapters.engines.machine import Machine
from adapters.engines.measuring import verdict
from adapters.engines.probes import Probes

BARE = Machine("a processor", frozenset({"avx2"}), ())
WITH_BF16 = Machine("a processor", frozenset({"avx512_bf16"}), ())
GOOD = Finding(Kind("openvino", "fp32"), 2.0, 2.0, cosine=1.0, agreement=1.0, neighbours=1.0)


def wanted(folder: Path, engine: str = "auto", precision: str = "auto", seconds: float = 60.0) -> Wanted:
    return Wanted(engine, precision, threads=1, max_batch=4, seconds=seconds, folder=folder)  # type: ignore[arg-type]  # from parameters


def test_torch_without_a_word_about_precision_measures_nothing(tiny_backbone: Backbone, tmp_path: Path) -> None:
    chosen = choose_engine(tiny_backbone, wanted(tmp_path, "torch"))
    assert (chosen.engine, chosen.decision.source, chosen.decision.precision) == (None, "setting", "fp32")
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_in_another_precision_keeps_its_own_tower(tiny_bf16_backbone: Backbone, tmp_path: Path) -> None:
    chosen = choose_engine(replace(tiny_bf16_backbone, precision="bf16"), wanted(tmp_path))
    assert (chosen.engine, chosen.decision.precision, chosen.decision.source) == (None, "bf16", "setting")


def test_bf16_is_not_tried_without_its_instructions(tiny_backbone: Backbone, tmp_path: Path) -> None:
    chosen = choose_engine(tiny_backbone, wanted(tmp_path, "torch", "bf16"), BARE)
    (finding,) = chosen.decision.findings
    assert chosen.engine is None
    assert finding.refused == "this processor has no bf16 instructions"


@pytest.fixture(scope="module")
def measured(tiny_backbone: Backbone, engine_folder: Path) -> Path:
    """A folder in which all engines were measured once."""
    folder = engine_folder
    encoded = tiny_backbone.text.prompts_encoded
    first = choose_engine(tiny_backbone, wanted(folder), WITH_BF16)
    assert first.decision.source == "measured"
    assert tiny_backbone.text.prompts_encoded == encoded
    return folder


def test_every_candidate_is_listed_with_figures_or_a_reason(tiny_backbone: Backbone, measured: Path) -> None:
    decision = choose_engine(tiny_backbone, wanted(measured), WITH_BF16).decision
    assert decision.findings[0].kind == REFERENCE
    assert len({found.kind for found in decision.findings}) == 7
    assert all(found.refused or found.cost < float("inf") for found in decision.findings)
    able = [found for found in decision.findings if not found.refused]
    assert Kind(decision.engine, decision.precision) in {found.kind for found in able}  # type: ignore[arg-type]  # of a kind


def test_a_later_start_remembers_and_scores_the_same(tiny_backbone: Backbone, measured: Path) -> None:
    pixels = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    first, second = (choose_engine(tiny_backbone, wanted(measured), WITH_BF16) for _ in range(2))
    assert first.decision == second.decision
    assert first.decision.source == "remembered"
    towers = [tiny_backbone.image.run_by(one.engine) if one.engine else tiny_backbone.image for one in (first, second)]
    assert torch.equal(towers[0].encode(pixels), towers[1].encode(pixels))


def test_another_machine_or_wish_is_another_decision(tiny_backbone: Backbone, measured: Path) -> None:
    other = replace(WITH_BF16, processor="another processor")
    assert choose_engine(tiny_backbone, wanted(measured, seconds=0), other).decision.source == "measured"
    assert WITH_BF16.key(threads=1) != other.key(threads=1)
    assert WITH_BF16.key(threads=1) != WITH_BF16.key(threads=2)


def test_when_time_is_over_no_further_engine_is_begun(tiny_backbone: Backbone, tmp_path: Path) -> None:
    decision = choose_engine(tiny_backbone, wanted(tmp_path, seconds=0), WITH_BF16).decision
    assert (decision.engine, decision.precision) == ("torch", "fp32")
    assert all("not tried" in found.refused for found in decision.findings[1:3])
    assert list(tmp_path.glob("choice-*")) == []  # the next start may have more time


def test_what_fails_is_told_and_torch_serves(tiny_backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file where the folder should be", encoding="utf-8")
    chosen = choose_engine(tiny_backbone, wanted(tmp_path / "engines", "torch", "bf16"), WITH_BF16)
    assert (chosen.engine, chosen.decision.source) == (None, "fallback")
    assert "FileExistsError" in chosen.decision.reason


def test_a_decision_that_cannot_be_opened_any_more_is_made_again(tiny_backbone: Backbone, tmp_path: Path) -> None:
    asked = wanted(tmp_path, "torch", "bf16")
    choose_engine(tiny_backbone, asked, WITH_BF16)
    (file,) = tmp_path.glob("choice-*.json")
    file.write_text(file.read_text(encoding="utf-8").replace('"precision": "', '"precision": "x', 1), "utf-8")
    assert choose_engine(tiny_backbone, asked, WITH_BF16).decision.source == "measured"
    assert choose_engine(tiny_backbone, asked, WITH_BF16).decision.source == "remembered"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"cosine": 0.9989}, "cosine 0.99890 to torch fp32 is below 0.999"),
        ({"cosine": float("nan")}, "cosine nan to torch fp32 is below 0.999"),
        ({"agreement": 0.985}, "top-1 agreement 0.9850 with torch fp32 is below 0.99"),
        ({"neighbours": 0.9997}, "cosine 0.99970 between an image alone and in a batch is below 0.9999"),
        ({"neighbours": None}, "not measured"),
    ],
)
def test_the_verdict_names_the_threshold_that_was_missed(changed: dict[str, float], reason: str) -> None:
    assert verdict(replace(GOOD, **changed)) == reason  # type: ignore[arg-type]  # from parameters


def test_the_more_exact_engine_wins_a_near_tie() -> None:
    bf16 = replace(GOOD, kind=Kind("openvino", "bf16"), ms_single=1.95, ms_batch=1.95)
    faster = replace(bf16, ms_single=1.0)
    refused = replace(faster, refused="cosine")
    assert pick([bf16, GOOD]).kind == GOOD.kind
    assert pick([GOOD, faster]).kind == faster.kind
    assert pick([GOOD, refused]).kind == GOOD.kind


def test_agreement_counts_changed_answers(tiny_backbone: Backbone) -> None:
    probes = Probes.of(tiny_backbone, 8)
    rows = tiny_backbone.image.encode(probes.pixels_P3SS)
    assert probes.pixels_P3SS.shape == (8, 3, 32, 32)
    assert probes.agreement(rows, rows) == 1.0
    assert probes.agreement(rows, -rows) < 0.5


def test_a_failure_is_one_line() -> None:
    def fail() -> None:
        raise RuntimeError("first line\nsecond line")

    assert attempt(fail) == Failure("RuntimeError: first line")
