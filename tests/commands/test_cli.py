"""The `selftpt` command as a user sees it: output, exit codes, and advice when something is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from service.cli import COMMANDS, cli
from service.client import Client, ProgressCallback
from service.commands.classify import write
from service.commands.label_sets import follow
from service.commands.labels import option_value, read_labels
from service.schemas import ImageAnswer, LabelSetAnswer, Prediction, Problem
from tests.client.test_client import LABEL_SET

IMAGES = Path(__file__).resolve().parents[2] / "examples/images"
CAT = ImageAnswer(predictions=[Prediction(label="cat", score=0.75, cosine=0.3)])
BROKEN = ImageAnswer(error=Problem(type="x", title="Undecodable image", status=422, detail="cut short"))


def selftpt(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_names_every_command_and_does_not_load_torch() -> None:
    asked = "from service.cli import cli; cli(['--help'], standalone_mode=False)"
    script = f"import sys; {asked}; sys.exit('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert all(f"  {name} " in run.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_an_unreachable_service_is_one_readable_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        run = selftpt("labels", "list", "--server", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert run.returncode == 1
    assert run.stderr.startswith("Error: no service answers at http://127.0.0.1:")
    assert "Traceback" not in run.stderr


def test_labels_come_from_text_and_file(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("# pets\ncat, wild\n\n dog \n", encoding="utf-8")
    assert read_labels("bird,  ant ,", file) == ["bird", "ant", "cat, wild", "dog"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("steps=5", 5), ("lr=0.5", 0.5), ("ensemble=true", True), ("views=end", "end"), ("a=b=c", "b=c")],
)
def test_options_take_their_most_specific_type(text: str, value: object) -> None:
    assert option_value(text)[1] == value
    assert type(option_value(text)[1]) is type(value)


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="NAME=VALUE"):
        option_value("steps")


def test_classify_wants_exactly_one_source_of_labels() -> None:
    result = CliRunner().invoke(cli, ["classify", str(IMAGES / "cat.jpg")])
    assert result.exit_code == 2
    assert "--labels" in result.output


def test_results_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    write([(Path("a.jpg"), CAT), (Path("b.jpg"), BROKEN)], "json")
    first, second = json.loads(capsys.readouterr().out)
    assert first == {"image": "a.jpg", "predictions": [{"label": "cat", "score": 0.75, "cosine": 0.3}]}
    assert second["error"]["detail"] == "cut short"


def test_results_as_csv(capsys: pytest.CaptureFixture[str]) -> None:
    write([(Path("a.jpg"), CAT), (Path("b.jpg"), BROKEN)], "csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert (rows[0]["label"], rows[0]["score"]) == ("cat", "0.750000")
    assert rows[1]["error"] == "cut short"


def test_results_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    write([(Path("a.jpg"), CAT), (Path("b.jpg"), BROKEN)], "table")
    out = capsys.readouterr().out
    assert "75.0%" in out
    assert "cut short" in out


def test_doctor_says_what_to_do_about_a_bad_setting() -> None:
    run = selftpt("doctor", SELFTPT_PORT="eighty")
    assert run.returncode == 1
    assert "SELFTPT_PORT" in run.stdout


def test_doctor_finds_an_unwritable_data_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    run = selftpt("doctor", "--json", SELFTPT_DATA_DIR=str(blocked / "data"), SELFTPT_REDIS_URL="redis://127.0.0.1:1")
    levels = {finding["subject"]: finding["level"] for finding in json.loads(run.stdout)}
    assert run.returncode == 1
    assert levels["data folder"] == levels["redis"] == "fail"
    assert levels["torch"] == "ok"


class Impatient(Client):
    def follow(self, label_set: str, progress: ProgressCallback | None = None) -> LabelSetAnswer:
        raise KeyboardInterrupt


def test_ctrl_c_says_that_the_work_goes_on_and_how_to_end_it(capsys: pytest.CaptureFixture[str]) -> None:
    answer = LabelSetAnswer.model_validate(LABEL_SET | {"status": "adapting", "progress": 0.5})
    with Impatient("http://service") as client, pytest.raises(KeyboardInterrupt):
        follow(client, answer)
    assert "selftpt labels delete ab" in capsys.readouterr().err
