"""The Dockerfile's steps without a container engine: what a stage copies and runs is done in a folder, and the command
of the image is started there until the image's own health check passes.

Not what an image is: libraries that are installed already stand in for those that pip would fetch, and the system is
this one. `python docker/dry_run.py` prints each step.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 120.0


@dataclass
class Stage:
    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> dict[str, Stage]:
    """By name; each step is an instruction and its arguments on one line."""
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines():
        instruction, _, arguments = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = arguments.partition(" AS ")
            found[name] = current = Stage(name, base)
        elif instruction:
            current.steps.append((instruction, " ".join(arguments.split())))
    return found


def lineage(all_stages: dict[str, Stage], name: str) -> Iterator[Stage]:
    """A stage after those it stands on."""
    if name in all_stages:
        yield from lineage(all_stages, all_stages[name].base)
        yield all_stages[name]


class DryRun:
    """`root` is the folder that stands for the image's `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = stages((HERE / "Dockerfile").read_text(encoding="utf-8"))
        self.environment: dict[str, str] = {}

    def build(self, name: str) -> None:
        for stage in lineage(self.stages, name):
            for instruction, arguments in stage.steps:
                say(f"{stage.name}: {instruction} {arguments}")
                getattr(self, f"_{instruction.lower()}", lambda _: None)(arguments)

    def serve(self, name: str) -> float:
        """Seconds until the health check of the stage passed; the service is ended again."""
        steps = [step for stage in lineage(self.stages, name) for step in stage.steps]
        check = json.loads(next(words for what, words in steps if what == "HEALTHCHECK").partition("CMD ")[2])
        command = json.loads(next(words for what, words in steps if what == "CMD"))
        port = free_port()
        began = time.monotonic()
        with subprocess.Popen(self._here(command, port), env=self._environment(), cwd=self.root) as service:
            try:
                while self._failed(self._here(check, port)):
                    assert service.poll() is None, "the service ended"
                    assert time.monotonic() - began < PATIENCE, "the health check never passed"
                    time.sleep(0.5)
            finally:
                service.terminate()
        assert service.returncode == 0, "SIGTERM ends it cleanly"
        return time.monotonic() - began

    def _failed(self, command: list[str]) -> bool:
        return subprocess.run(command, env=self._environment(), capture_output=True, check=False).returncode != 0

    def _copy(self, arguments: str) -> None:
        *sources, target = arguments.split()
        if sources[0].startswith("--from="):
            return  # both stages are in this one folder
        for source in sources:
            path, there = HERE.parent / source, self.root / "app" / target / (source if Path(target).name == "" else "")
            if path.is_dir():
                shutil.copytree(path, self.root / "app" / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.root / "app")

    def _run(self, arguments: str) -> None:
        if arguments.startswith("useradd"):
            (self.root / "data").mkdir()
            return
        here = arguments.replace("/opt/selftpt", str(self.root / "opt"))
        venv, _, install = here.partition(" && ")
        self._shell(venv)
        self._lend_libraries()
        # The package itself is built and installed as in the image; its dependencies are lent.
        own = re.sub(r"--extra-index-url \S+|\btorch(vision)?\b", "", install).replace("pip install", "-m pip install")
        self._shell(re.sub(r"/bin/-m", "/bin/python -m", own) + " --no-deps")

    def _shell(self, command: str) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where `python` is for sure
        environment = {**os.environ, "PATH": path, "EXTRAS": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run(["sh", "-euc", command], cwd=self.root / "app", check=True, env=environment, capture_output=True)

    def _lend_libraries(self) -> None:
        """All that is installed here but this project, which is in here by a path file of its own."""
        (packages,) = (self.root / "opt" / "lib").glob("python*/site-packages")
        (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def _env(self, arguments: str) -> None:
        self.environment |= dict(pair.split("=", 1) for pair in arguments.split())

    def _environment(self) -> dict[str, str]:
        given = {key: value for key, value in self.environment.items() if key.startswith("SELFTPT_")}
        paths = {
            "SELFTPT_DATA_DIR": str(self.root / "data"),
            "PATH": f"{self.root / 'opt' / 'bin'}:{os.environ['PATH']}",
        }
        few = {
            "OMP_NUM_THREADS": "1",
            "SELFTPT_ENGINE": "torch",
            "SELFTPT_THREADS": "1",
            "SELFTPT_ALLOW_ANONYMOUS": "true",
        }
        return {**os.environ, **given, **few, **paths}

    def _here(self, command: list[str], port: int) -> list[str]:
        program = str(self.root / "opt" / "bin" / command[0])
        return [program, *(word.replace("8000", str(port)) for word in command[1:])]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        run = DryRun(Path(folder))
        run.build("build-cpu")
        run.build("cpu")
        say(f"healthy after {run.serve('cpu'):.1f} s")


if __name__ == "__main__":
    main()
