"""The build resumes: a phase whose artefact exists is skipped, and the documented commands are understood."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from adapters.training.backbone import PHASES, Build, parse_arguments
from adapters.training.names import Name
from adapters.training.wordnet import WordNet

ROOT = Path(__file__).resolve().parents[3]
ARTEFACTS = {"distil": "distilled", "align": "aligned"}


def build(work: Path, captions: bool = True, divisor: int = 1) -> Build:
    return Build(work / "no-data", work, work / "no-out", captions, divisor)


@pytest.mark.parametrize("phase", ARTEFACTS)
@pytest.mark.parametrize(
    ("captions", "divisor", "suffix"), [(True, 1, ""), (True, 10, "-quick"), (False, 1, "-without-flickr8k")]
)
def test_a_phase_whose_artefact_exists_is_skipped(
    phase: str, captions: bool, divisor: int, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{ARTEFACTS[phase]}{suffix}.pt"
    path.write_text("done")
    PHASES[phase](build(tmp_path, captions, divisor))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "done"


def test_a_phase_goes_on_from_the_artefacts_of_the_one_before(tmp_path: Path, wordnet: WordNet) -> None:
    (tmp_path / "names.json").write_text(json.dumps([asdict(Name("dog", None, "clip"))]))
    torch.save({"joint": torch.ones(1, 4), "rows": torch.ones(1, 6)}, tmp_path / "teacher.pt")
    corpus = {"tokens": torch.ones(3, 32), "targets": torch.ones(3, 4), "names": 1, "captions": 2}
    corpus |= {"owners": torch.empty(0), "shifts": torch.zeros(1, 4)}
    torch.save(corpus, tmp_path / "corpus.pt")
    resumed = build(tmp_path)
    vars(resumed)["wordnet"] = wordnet  # where the cached property would keep Debian's
    PHASES["targets"](resumed)
    assert (resumed.names, resumed.corpus.captions) == ([Name("dog", None, "clip")], 2)


def test_an_unknown_phase_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--data", "d", "--work", "w", "--out", "o", "--phases", "alignment"])
    assert "alignment" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["Makefile", "docs/bundled_backbone.md"])
def test_the_documented_command_is_understood_and_runs_all_phases(page: str) -> None:
    (command,) = re.findall(r"python -m adapters\.training\.backbone (--.*)", (ROOT / page).read_text())
    options = parse_arguments(shlex.split(command))
    assert options.phases == ["features", "targets", "distil", "align", "export"]
    assert options.out == Path("adapters/bundled")
