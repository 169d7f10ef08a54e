"""An image tower as an ONNX file from uint8 pixels to features, with a free batch size. Made once per backbone."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnxscript  # noqa: F401  # torch's exporter needs it; a missing one should be said here, before the work
import torch

from adapters.engines.artefacts import Artefacts
from adapters.engines.base import Tower
from adapters.engines.torch_tower import PixelTower

RECIPE = 1
"""Goes up when the exported graph changes."""

INPUT, OUTPUT = "pixels", "features"
_LARGEST_BATCH = 4096


def exported(tower: Tower, artefacts: Artefacts) -> Path:
    """The ONNX file of a tower. Seconds the first time. Raises what torch's exporter raises."""

    def make(path: Path) -> None:
        with quiet():
            _export(tower, path)

    return artefacts.get(stem_of(tower, "tower"), ".onnx", make)


def stem_of(tower: Tower, what: str) -> str:
    return f"{tower.fingerprint[:32]}-{what}-r{RECIPE}-torch{torch.__version__.split('+')[0]}"


def _export(tower: Tower, path: Path) -> None:
    module = PixelTower(_plain_copy(tower)).eval()
    example = torch.zeros(2, 3, tower.size, tower.size, dtype=torch.uint8)
    torch.onnx.export(
        module,
        (example,),
        str(path),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        external_data=False,
        verbose=False,
    )


def _plain_copy(tower: Tower) -> Tower:
    """Without torch's memory format, which is no business of an exported graph."""
    visual = copy.deepcopy(tower.visual).to(memory_format=torch.contiguous_format)
    return Tower(visual, tower.mean, tower.std, tower.size, tower.fingerprint)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress that the exporter prints and the warnings of the libraries beneath it, none of which is
    about anything that could be changed here."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
