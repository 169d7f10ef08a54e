"""What an installation must carry beside the code, and that the project file and the make targets hold together."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest itself needs on Python 3.10

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = ("venv", "serve", "test", "check", "bench", "backbone", "clean")


def packaged(package: str) -> set[str]:
    """Files below a package that the package-data patterns put into a wheel."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"][package]
    return {
        path.relative_to(ROOT / package).as_posix() for pattern in patterns for path in (ROOT / package).glob(pattern)
    }


def test_the_console_is_packaged() -> None:
    present = {f"console/{entry.name}" for entry in files("service").joinpath("console").iterdir()}
    assert {"console/index.html", "console/console.css", "console/console.js"} <= present & packaged("service")


def test_the_bundled_backbone_is_packaged() -> None:
    names = packaged("adapters")
    assert "bundled/open_clip_config.json" in names
    assert any(name.endswith(".safetensors") for name in names)


def test_every_bundled_file_is_packaged() -> None:
    present = {path.relative_to(ROOT / "adapters").as_posix() for path in (ROOT / "adapters/bundled").rglob("*")}
    assert {name for name in present if "__pycache__" not in name} <= packaged("adapters")


@pytest.mark.parametrize("package", ["adapters", "service"])
def test_packages_are_typed(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


def test_the_command_is_installed() -> None:
    scripts = {entry.name: entry.value for entry in distribution("self-tpt-service").entry_points}
    assert scripts["selftpt"] == "service.cli:main"


def test_torch_and_torchvision_are_only_bounded_from_below() -> None:
    pins = [line for line in PROJECT["project"]["dependencies"] if line.startswith("torch")]
    assert sorted(pins) == sorted(line for line in pins if re.fullmatch(r"torch(vision)?>=[\d.]+", line))
    assert len(pins) == 2


@pytest.mark.parametrize("target", TARGETS)
def test_a_make_target_exists(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_demo_photos_name_their_licence() -> None:
    listed = (ROOT / "examples/images/README.md").read_text(encoding="utf-8")
    photos = sorted((ROOT / "examples/images").glob("*.jpg"))
    assert photos
    assert all(f"`{photo.name}`" in listed and photo.stat().st_size < 120_000 for photo in photos)


def test_source_prompts_are_packaged() -> None:
    assert any(name.startswith("source_prompts/") and name.endswith(".safetensors") for name in packaged("adapters"))
