"""Classifying in this process, without a server: the library used directly. Loads torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from PIL import Image, ImageOps

from adapters import create_adapter
from adapters.base import Adapter, ClassState, LabelSet
from adapters.clip import Backbone, load_backbone
from adapters.errors import AdapterError
from adapters.scoring import state_logits
from service.commands.display import progress
from service.schemas import ImageAnswer, Prediction, Problem

AT_ONCE = 16
UNREADABLE = 422


@contextmanager
def plainly() -> Iterator[None]:
    """What the science side refuses becomes one readable line."""
    try:
        yield
    except AdapterError as failure:
        raise click.ClickException(str(failure)) from failure


def classify_locally(
    files: Sequence[Path],
    names: Sequence[str],
    *,
    backbone_name: str,
    device: str,
    adapter_name: str,
    top_k: int,
) -> list[tuple[Path, ImageAnswer]]:
    rows: list[tuple[Path, ImageAnswer]] = []
    with plainly(), progress() as bars:
        loading = bars.add_task(f"loading {backbone_name}", total=None)
        backbone = load_backbone(backbone_name, device=device)
        adapter = create_adapter(adapter_name, backbone)
        bars.remove_task(loading)
        adapting = bars.add_task(f"adapting {len(names)} classes ({adapter.name})", total=1.0)
        labels = LabelSet.of(*names)
        state = adapter.adapt(labels, backbone, progress=lambda done: bars.update(adapting, completed=done))
        bars.remove_task(adapting)
        task = bars.add_task("classifying", total=len(files))
        for start in range(0, len(files), AT_ONCE):
            group = files[start : start + AT_ONCE]
            rows += classify_group(group, backbone, labels, state, adapter, top_k=top_k)
            bars.advance(task, len(group))
    return rows


def classify_group(
    files: Sequence[Path], backbone: Backbone, labels: LabelSet, state: ClassState, adapter: Adapter, *, top_k: int
) -> list[tuple[Path, ImageAnswer]]:
    """One pass over the images that can be read; the others carry their error."""
    pixels: dict[Path, torch.Tensor] = {}
    errors: dict[Path, ImageAnswer] = {}
    for path in files:
        try:
            with Image.open(path) as image:
                pixels[path] = backbone.preprocess.pixels(ImageOps.exif_transpose(image))
        except (OSError, ValueError, Image.DecompressionBombError) as failure:
            errors[path] = unreadable(failure)
    rows: list[ImageAnswer] = []
    if pixels:
        logits = state_logits(torch.stack(list(pixels.values())).to(backbone.device), state, adapter, backbone)
        rows = ranked(logits, labels, state, top_k)
    answers = dict(zip(pixels, rows, strict=True))
    return [(path, answers[path] if path in answers else errors[path]) for path in files]


def ranked(logits: torch.Tensor, labels: LabelSet, state: ClassState, top_k: int) -> list[ImageAnswer]:
    scores, places = logits.softmax(dim=-1).topk(min(top_k, len(labels.names)), dim=-1)
    cosines = (logits / state.logit_scale).gather(-1, places)
    return [
        ImageAnswer(
            predictions=[
                Prediction(label=labels.names[place], score=score, cosine=cosine)
                for place, score, cosine in zip(row_places, row_scores, row_cosines, strict=True)
            ]
        )
        for row_places, row_scores, row_cosines in zip(places.tolist(), scores.tolist(), cosines.tolist(), strict=True)
    ]


def unreadable(failure: Exception) -> ImageAnswer:
    problem = Problem(type="undecodable-image", title="Undecodable image", status=UNREADABLE, detail=str(failure))
    return ImageAnswer(error=problem)
