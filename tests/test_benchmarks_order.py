"""The benchmarks together: they go on where they were, and no half-written text is taken for a whole one."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from adapters import create_adapter
from adapters.base import LabelSet
from adapters.evaluation.records import Cost
from benchmarks import __main__ as order
from benchmarks import per_image
from benchmarks.classify import IMAGES, RawLoop
from benchmarks.drawing import bars, curves
from benchmarks.load_curve import Point, median, write_points
from benchmarks.saturation import ONE, RAW, rounds, spread
from tests.conftest import make_tiny_backbone

ENOUGH = 40


def test_every_step_is_a_benchmark_that_can_be_called() -> None:
    assert all(find_spec(f"benchmarks.{step.name}") for step in order.STEPS)
    command = order.STEPS[0].command(quick=True, out=Path("out"))
    assert command[:3] == [sys.executable, "-m", f"benchmarks.{order.STEPS[0].name}"]


def test_a_step_that_is_done_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "decode.md").write_text("kept figures\n", encoding="utf-8")
    order.main(["--out", str(tmp_path), "--only", "decode"])
    assert "kept figures" in capsys.readouterr().out


def test_a_step_that_fails_is_named_and_leaves_no_whole_text(tmp_path: Path) -> None:
    assert not order.run(order.Step("no_such_benchmark"), tmp_path, quick=True)
    assert not (tmp_path / "no_such_benchmark.md").exists()


@pytest.mark.parametrize("step", order.STEPS, ids=lambda step: step.name)
def test_the_arguments_of_a_smoke_test_are_those_of_the_benchmark(step: order.Step) -> None:
    name = f"benchmarks.{step.name}{'.comparison' if step.name == 'peers' else ''}"
    with pytest.raises(SystemExit) as ended:
        import_module(name).main([*step.quick.split(), *(["--out", "x"] if step.folder else []), "--help"])
    assert ended.value.code == 0


def test_medians_are_certain_only_after_many_rounds() -> None:
    assert spread([1.0] * 5) == math.inf
    assert spread([1.0, 1.02] * 20) == pytest.approx(0.01)
    noisy = [0.5, 1.5] * 20
    assert spread(noisy) == pytest.approx(0.5)


def test_rounds_end_when_the_ratios_are_certain_and_take_turns() -> None:
    asked: list[str] = []
    names = (RAW, "raw loop, decoding ahead on a second thread", ONE, "64 label sets")
    ways = {name: lambda name=name: asked.append(name) or 100.0 for name in names}  # type: ignore[misc,func-returns-value]  # bound at once
    found = list(rounds(ways, 0.01, ENOUGH))
    assert len(found) < ENOUGH
    assert asked[0] != asked[4]
    assert all(len(rates) == len(found) for rates in found[-1].values())


def test_points_are_told_as_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = [
        Point("1 at once", 10.0, 10.0, 1.0, 2.0, 3.0),
        Point("200% of capacity", 40.0, 19.0, 5.0, 6.0, 7.0, 90, 1.5),
    ]
    write_points(20.0, points, tmp_path, [])
    assert "| 200% of capacity | 40.0 | 19.0 | 5.0 | 6.0 | 7.0 | 90 | 1.5 | 0 |" in capsys.readouterr().out
    assert (tmp_path / "load_curve.json").exists()
    assert median([points[0], points[0]]).goodput == 10.0


def test_pictures_are_drawn(tmp_path: Path) -> None:
    assert curves({"closed": [(1.0, 2.0), (2.0, 3.0)]}, tmp_path / "curve.png", xlabel="images/s", ylabel="ms")
    assert bars({"one": {"fast": 1.0}, "other": {"fast": 2.0}}, tmp_path / "bars.png", ylabel="images/s")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_methods_are_compared_with_the_adapted_one() -> None:
    def cost(method: str, ms: float, mib: float) -> Cost:
        return Cost(method, "names", 100, "", fit_seconds=1.0, nbytes=1, fit_mib=5.0, image_ms=ms, image_mib=mib)

    rows = per_image.table({"self-tpt": [cost("self-tpt", 20.0, 0.1)], "tpt": [cost("tpt", 2000.0, 400.0)]})
    assert rows[1][1:5] == ("2000.0", "100.0", "400", "400.0")


def test_the_raw_loop_answers_batches_that_are_decoded_ahead() -> None:
    backbone = make_tiny_backbone()
    state = create_adapter("zero-shot", backbone).adapt(LabelSet.of("cat", "dog"), backbone)
    loop = RawLoop(backbone, state, [IMAGES / "cat.jpg"])
    with ThreadPoolExecutor(1) as decoder:
        assert loop.pipelined([(IMAGES / "cat.jpg").read_bytes()] * 2, 0.05, decoder) > 0
