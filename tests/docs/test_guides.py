"""The code blocks of the documentation do what it says: shell, Python and JavaScript, in order, on the real thing."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib as mpl
import pytest

from adapters.clip import Backbone
from benchmarks.process import running_service
from tests.docs.guide_blocks import ROOT, Shell, blocks
from tests.service.label_images import drawn
from tests.service.listening import listening

PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docker/*.md"))
)
RUN = {"README.md", "docs/api.md", "docs/library.md", "docs/tutorial.md"}
"""Pages all of whose blocks run, but for those that say why they do not."""

TRAINS = "learns for minutes; tests/commands/test_offline.py runs it on a small model"
LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        "make ": "installs into .venv, and runs these tests",
        "selftpt serve": "serves until it is ended; tests/commands/test_serve.py runs it",
        "selftpt train": TRAINS,
        "selftpt eval": TRAINS,
        "selftpt compare": TRAINS,
        "selftpt doctor": "looks at the machine it runs on; tests/commands/test_doctor.py runs it",
    },
    "docs/results.md": {"": "a record of runs that were made once, with what they said"},
}
"""Commands that are not run, by how they begin, where the reason does not stand above the block."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the blocks run: the examples are there and photos like a reader's; what blocks write stays there."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for classes, place in ((("coffee cup", "plate", "fork", "kettle"), "kitchen-photos"), (("cat", "dog"), "photos")):
        for label in classes:
            (tmp_path / place / label).mkdir(parents=True)
            for seed in range(4):
                (tmp_path / place / label / f"{seed}.png").write_bytes(drawn(label, seed))
    for number in (1, 2):
        (tmp_path / f"plate{number}.jpg").write_bytes(drawn("plate", number))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("plate/1.png", drawn("plate", 9))
    (tmp_path / "test-photos").symlink_to("photos")
    (tmp_path / "names.txt").write_text("cat\ndog\nrocket\n", encoding="utf-8")
    (tmp_path / "pets.txt").write_text("cat\ndog\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFTPT_API_KEYS_FILE", str(tmp_path / "keys.json"))
    return tmp_path


@pytest.fixture(scope="module")
def tiny_address(tiny_backbone: Backbone) -> Iterator[str]:
    with listening(tiny_backbone) as url:
        yield url.removeprefix("http://")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    """`<!-- not run: REASON -->` above a block is that reason; `<!-- output: ... -->` above one without a language
    says that nothing in it is to be run."""
    open_blocks = [one for one in blocks(page) if one.runnable and one.reason is None]
    reasons = LEFT_OUT.get(page, {})
    neither = [f"{page}:{one.line}" for one in open_blocks if page not in RUN and not reasons]
    assert neither == []
    commands = [command for one in open_blocks for command in one.commands]
    assert [start for start in reasons if not any(command.startswith(start) for command in commands)] == []


def run_page(page: str, shell: Shell) -> str:
    for block in blocks(page):
        if block.runnable and block.reason is None:
            shell.run(block, LEFT_OUT.get(page, {}))
    return shell.said


@pytest.mark.slow
def test_the_readme_runs(tiny_address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run_page("README.md", Shell(tiny_address)) + capsys.readouterr().out
    for expected in ('"adapted": true', "event: ready", "examples/images/cat.jpg", "image,rank,label", "stpt_", "ECE"):
        assert expected in said
    assert (folder / "results.parquet").stat().st_size > 100


@pytest.mark.slow
def test_the_tutorial_runs(tiny_address: str, folder: Path) -> None:
    said = run_page("docs/tutorial.md", Shell(tiny_address))
    for expected in ('"name":"kitchen"', '"adapted": true', "16 images of 4 classes", '"confusion"'):
        assert expected in said


@pytest.mark.slow
def test_the_api_guide_runs_on_the_bundled_backbone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_service(threads="1", engine="torch") as service:
        said = run_page("docs/api.md", Shell(service.url.removeprefix("http://"), strict=False))
    said += capsys.readouterr().out
    for expected in ('"adapted": true', "cat.jpg: cat", "images/s", "'rocket'", "there is no label set 'pests'"):
        assert expected in said
    assert len((folder / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 5


@pytest.mark.slow
def test_the_library_guide_runs_and_plots(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mpl.use("Agg")
    run_page("docs/library.md", Shell("no service"))
    assert capsys.readouterr().out.startswith("cat ")
    assert (folder / "scores.png").stat().st_size > 10_000
