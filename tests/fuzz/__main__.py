"""`python -m tests.fuzz [target] --seconds N`: mutates seeds for a bounded time, guided by coverage where atheris is
installed, else at random. Ends with an error at the first finding, and leaves the bytes that caused it."""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

NAMES = ("image", "frames", "state", "signed_state", "record", "base64_text")
WATCHED = ["PIL", "service", "adapters"]
"""Packages whose branches guide the search."""

FOUND = Path("fuzz-finding.bin")
INTERESTING = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b'"', b"{", b"[" * 300)


def mutated(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        place = draw.randrange(len(changed) + 1)
        how = draw.randrange(4)
        if how == 0 and changed:
            changed[place % len(changed)] ^= 1 << draw.randrange(8)
        elif how == 1:
            changed[place : place + draw.randrange(1, 8)] = draw.choice(INTERESTING)
        elif how == 2:
            del changed[place : place + draw.randrange(1, 64)]
        else:
            start = draw.randrange(len(changed) + 1)
            changed[place:place] = changed[start : start + draw.randrange(1, 256)]
    return bytes(changed)


def at_random(target: Callable[[bytes], None], seeds: list[bytes], seconds: float, seed: int) -> int:
    draw, ends, tried = random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        data = mutated(draw.choice(seeds), draw)
        FOUND.write_bytes(data)  # before, for a crash of native code leaves no time after
        target(data)
        tried += 1
    FOUND.unlink(missing_ok=True)
    return tried


def guided(name: str, target: Callable[[bytes], None], seeds: list[bytes], seconds: float) -> None:
    import atheris

    folder = Path(".fuzz") / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds):
        (folder / f"seed{number}").write_bytes(data)
    atheris.Setup([sys.argv[0], str(folder), f"-max_total_time={int(seconds)}", "-rss_limit_mb=3000"], target)
    atheris.Fuzz()


def watched() -> ModuleType:
    """The targets, with what they test made to report its branches; that works while it is imported."""
    import atheris

    with atheris.instrument_imports(include=WATCHED, enable_loader_override=False):
        return import_module("tests.fuzz.targets")


def one(name: str, seconds: float, seed: int) -> None:
    warnings.simplefilter("ignore")
    with_atheris = importlib.util.find_spec("atheris") is not None
    targets = watched() if with_atheris else import_module("tests.fuzz.targets")
    made = targets.decoding() if name == "image" else getattr(targets, name)
    seeds = getattr(targets, f"{name}_seeds", targets.image_seeds)()
    if with_atheris:
        guided(name, made, seeds, seconds)
    else:
        sys.stdout.write(f"{name}: {at_random(made, seeds, seconds, seed)} inputs, nothing found\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", choices=NAMES)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.target is not None:
        one(given.target, given.seconds, given.seed)
        return
    for name in NAMES:
        share = str(given.seconds / len(NAMES))
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", share, "--seed", str(given.seed)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
