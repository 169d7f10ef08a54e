"""`selftpt classify --out`: folders of any size, one row per image, and no work done twice after a kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pyarrow import parquet

from adapters.clip import Backbone
from service.cli import cli
from service.commands.batch import AHEAD, AT_ONCE, ahead, run_batch
from service.commands.journal import Journal, cut_torn_line
from service.commands.walking import Found, walk, without
from service.schemas import ImageAnswer, Prediction
from tests.commands.test_offline import model_folder  # noqa: F401  # a fixture
from tests.service.listening import listening
from tests.service.served import photo

ABOUT = {"labels": "x"}


class Counting:
    """Knows every image, except those whose name says otherwise; breaks off when told to."""

    adapted, pending = True, False

    def __init__(self, break_after: int = 10**9) -> None:
        self.seen: list[str] = []
        self.break_after = break_after

    def prepare(self, files: Sequence[Path]) -> list[Path]:
        return list(files)

    def finish(self, prepared: list[Path]) -> list[ImageAnswer]:
        if len(self.seen) >= self.break_after:
            raise KeyboardInterrupt
        self.seen += [path.name for path in prepared]
        return [ImageAnswer(predictions=[Prediction(label="cat", score=0.5, cosine=0.1)]) for _ in prepared]

    def close(self) -> None:
        pass


def folder_of(path: Path, count: int) -> Path:
    for number in range(count):
        place = path / f"{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04}.png").touch()
    return path


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_folders_files_and_globs_are_walked_in_an_order_of_their_own(tmp_path: Path) -> None:
    folder_of(tmp_path / "a", 4)
    (tmp_path / "a" / ".hidden").mkdir()
    (tmp_path / "a" / ".hidden" / "x.png").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    found = list(walk([str(tmp_path / "a"), str(tmp_path / "a/0/*.png")]))
    assert [one.path.name for one in found] == ["0000.png", "0003.png", "0001.png", "0002.png", "0000.png", "0003.png"]
    assert [one.place for one in found] == sorted(one.place for one in found)
    with pytest.raises(click.UsageError, match="no image found"):
        list(walk(["/nonexistent/*.jpg"]))


def test_what_is_done_is_left_out_and_what_came_later_is_not() -> None:
    walked = [Found((0, (name,)), Path(name)) for name in "abcd"]
    done = [(0, ("a",)), (0, ("b0",)), (0, ("c",))]
    assert [one.path.name for one in without(iter(walked), iter(done))] == ["b", "d"]


def test_work_runs_ahead_by_a_few_items_only() -> None:
    begun: list[int] = []
    results = ahead(lambda item: begun.append(item) or -item, iter(range(100)))
    assert next(results) == (0, 0)
    assert len(begun) <= AHEAD + 1
    assert [made for _, made in results] == [-item for item in range(1, 100)]


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, out = folder_of(tmp_path / "images", 5 * AT_ONCE), tmp_path / "out.jsonl"
    first, second = Counting(break_after=2 * AT_ONCE), Counting()
    with pytest.raises(KeyboardInterrupt):
        run_batch([str(folder)], out, ABOUT, lambda: first)
    assert not out.exists()
    assert run_batch([str(folder)], out, ABOUT, lambda: second) == (5 * AT_ONCE, 0)
    names = [Path(row["image"]).name for row in rows(out)]
    assert sorted(first.seen + second.seen) == sorted(names) == sorted(set(names))
    assert list(tmp_path.glob("*.parts")) == []


def test_an_unfinished_run_with_other_labels_is_not_mixed(tmp_path: Path) -> None:
    Journal(tmp_path / "x.parts", ABOUT).close()
    with pytest.raises(click.UsageError, match="unfinished run with other labels"):
        Journal(tmp_path / "x.parts", {"labels": "y"})


@pytest.mark.parametrize(("text", "left"), [("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("x" * 70_000, "")])
def test_a_torn_line_is_cut(tmp_path: Path, text: str, left: str) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text(text, encoding="ascii")
    cut_torn_line(file)
    assert file.read_text(encoding="ascii") == left


@pytest.fixture(scope="module")
def address(tiny_backbone: Backbone) -> Iterator[str]:
    with listening(tiny_backbone, adapter="zero-shot", max_body_bytes=6000, max_image_bytes=6000) as url:
        yield url


def selftpt(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_all_formats_have_a_row_per_image_and_errors_stop_nothing(address: str, tmp_path: Path) -> None:
    folder, labels = tmp_path / "images", tmp_path / "labels.txt"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.png").write_bytes(photo(size=(200 + number, 100)))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "large.png").write_bytes(bytes(9000))
    (folder / "gone.png").symlink_to(folder / "nowhere")
    labels.write_text("cat\ndog, wet\n", encoding="utf-8")
    for suffix in ("jsonl", "csv", "parquet"):
        out = tmp_path / f"out.{suffix}"
        result = selftpt("classify", folder, "--labels", labels, "--out", out, "--server", address)
        assert result.exit_code == 0, result.output
        assert "23 images" in result.output
        assert "3 of them with an error" in result.output
    by_name = {Path(row["image"]).name: row for row in rows(tmp_path / "out.jsonl")}
    assert len(by_name) == 23
    assert {label for label, _ in by_name["0.png"]["top"]} == {"cat", "dog, wet"}
    assert "damaged" in by_name["broken.jpg"]["error"]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 20 + 3
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["label"] for row in table if row["error"] is None].count(None) == 0
    assert selftpt("classify", folder, "--labels", labels, "--out", out, "--server", address).exit_code == 2


def test_a_wrong_name_for_the_result_is_said_before_any_work(tmp_path: Path) -> None:
    result = selftpt("classify", tmp_path, "--labels", "a,b", "--out", tmp_path / "x.xlsx")
    assert (result.exit_code, ".parquet, .csv, .jsonl" in result.output) == (2, True)


@pytest.mark.slow
def test_after_kill_9_every_image_is_there_once_and_most_of_the_work_is_kept(
    model_folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "images", tmp_path / "out.parquet"
    folder.mkdir()
    for number in range(240):
        Image.new("RGB", (320, 240), (number % 256, 90, 30)).save(folder / f"{number:03}.png", compress_level=1)
    command = [sys.executable, "-m", "service", "classify", str(folder), "--labels", "red,blue",
               "--adapter", "zero-shot", "--backbone", str(model_folder), "--out", str(out)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out.parquet.parts" / "000001.jsonl"
    while not journal.exists() or journal.stat().st_size == 0:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes().count(b"\n")
    assert 0 < kept < 240
    subprocess.run(command, env=environment, check=True, timeout=120, stderr=subprocess.DEVNULL)
    names = [Path(one).name for one in parquet.read_table(out)["image"].to_pylist()]
    assert names == [f"{number:03}.png" for number in range(240)]
    assert not journal.parent.exists()
