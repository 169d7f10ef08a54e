"""Every benchmark, one after the other, each in a process of its own, as one markdown text on standard output. What is
done is kept in a folder and not done again, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import progress, write


@dataclass(frozen=True, slots=True)
class Step:
    """`quick`: arguments of a smoke test. `folder`: whether it takes --out for what is more than text."""

    name: str
    quick: str = ""
    folder: bool = False

    def command(self, *, quick: bool, out: Path) -> list[str]:
        own = ["--out", str(out / self.name)] if self.folder else []
        return [sys.executable, "-m", f"benchmarks.{self.name}", *(self.quick.split() if quick else []), *own]


STEPS = (
    Step("decode", "--rounds 3"),
    Step("image_path", "--requests 30"),
    Step("saturation", "--seconds 0.5 --most 6"),
    Step("load_curve", "--rounds 1 --seconds 1 --concurrency 1 8 --shares 0.5 2", folder=True),
    Step("classify", "--rounds 1 --seconds 1"),
    Step("per_image", "--rounds 1 --images 1 --classes 5"),
    Step("peers", "--rounds 1 --seconds 1 --workers 1 --concurrency 1 8", folder=True),
    Step("adaptation", "--rounds 1 --classes 5 10"),
    Step("label_sizes", "--classes 10 50 --requests 5 --during 20 --rounds 1 --backbones bundled --prompts 40"),
    Step("memory", "--backbones bundled --classes 5 --timeout 120"),
    Step("single_flight", "--rounds 1 --callers 8 --classes 3"),
    Step("stores", "--rounds 2 --classes 10"),
    Step("scaling"),
    Step("durability", "--rounds 1 --seconds 0.5"),
    Step("takeover", "--rounds 1"),
    Step("engines", "--models bundled --batches 1 --rounds 1 --images 8 --random-images 4"),
)


def run(step: Step, out: Path, *, quick: bool) -> bool:
    """Whether it is done, now or before. Half a benchmark's text is never taken for a whole one's."""
    done, half = out / f"{step.name}.md", out / f"{step.name}.part"
    if done.exists():
        progress(f"{step.name}: done before")
        return True
    progress(f"{step.name}: begins")
    with half.open("w", encoding="utf-8") as text:
        failed = subprocess.run(step.command(quick=quick, out=out), stdout=text, check=False).returncode != 0
    if failed:
        progress(f"{step.name}: failed; its text so far is in {half}")
        return False
    half.rename(done)
    return True


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: the figures mean nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="remove it to measure anew")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS])
    arguments = parser.parse_args(argv)
    out = arguments.out / "quick" if arguments.quick else arguments.out
    out.mkdir(parents=True, exist_ok=True)
    chosen = [step for step in STEPS if not arguments.only or step.name in arguments.only]
    failed = [step.name for step in chosen if not run(step, out, quick=arguments.quick)]
    for step in chosen:
        if step.name not in failed:
            write((out / f"{step.name}.md").read_text(encoding="utf-8"))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
