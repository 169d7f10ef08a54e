"""Artefacts of a build: a file is either complete or not there."""

from pathlib import Path
from typing import Any

import torch


def save(content: Any, path: Path) -> None:
    """Write under another name, then rename, so that a run cut short leaves no half artefact behind."""
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    partial.replace(path)
