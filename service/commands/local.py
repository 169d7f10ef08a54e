"""Classifying in this process, without a server: the library used directly. Loads torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

UNREADABLE = 422

Decoded = list[torch.Tensor | ImageAnswer]
"""Pixels of an image, or its error."""


@contextmanager
def plainly() -> Iterator[None]:
    """What the science side refuses becomes one readable line."""
    try:
        yield
    except AdapterError as failure:
        raise click.ClickException(str(failure)) from failure


@dataclass(frozen=True, slots=True, eq=False)
class LocalClassifier:
    """One label set, adapted, in this process. Images are decoded by any thread and scored by one."""

    backbone: Backbone
    adapter: Adapter
    labels: LabelSet
    state: ClassState
    top_k: int

    @property
    def adapted(self) -> bool:
        return self.state.info.get("chosen", self.adapter.name) != "zero-shot"

    @property
    def pending(self) -> bool:
        return False

    def prepare(self, files: Sequence[Path]) -> Decoded:
        return [self._decoded(path) for path in files]

    def finish(self, prepared: Decoded) -> list[ImageAnswer]:
        """One pass over the images that can be read; the others carry their error."""
        pixels = [one for one in prepared if isinstance(one, torch.Tensor)]
        rows: Iterator[ImageAnswer] = iter(())
        if pixels:
            batch = torch.stack(pixels).to(self.backbone.device)
            logits = state_logits(batch, self.state, self.adapter, self.backbone)
            rows = iter(ranked(logits, self.labels, self.state, self.top_k))
        return [next(rows) if isinstance(one, torch.Tensor) else one for one in prepared]

    def close(self) -> None:
        """Nothing is held open."""

    def _decoded(self, path: Path) -> torch.Tensor | ImageAnswer:
        try:
            with Image.open(path) as image:
                return self.backbone.preprocess.pixels(ImageOps.exif_transpose(image))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as bad:
            return unreadable(bad)


def open_locally(
    names: Sequence[str], *, backbone_name: str, device: str, adapter_name: str, top_k: int
) -> LocalClassifier:
    """Loads and adapts, and shows both."""
    with plainly(), progress() as bars:
        loading = bars.add_task(f"loading {backbone_name}", total=None)
        backbone = load_backbone(backbone_name, device=device)
        adapter = create_adapter(adapter_name, backbone)
        bars.remove_task(loading)
        adapting = bars.add_task(f"adapting {len(names)} classes ({adapter.name})", total=1.0)
        labels = LabelSet.of(*names)
        state = adapter.adapt(labels, backbone, progress=lambda done: bars.update(adapting, completed=done))
        return LocalClassifier(backbone, adapter, labels, state, top_k)


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
    detail = str(failure) or type(failure).__name__
    problem = Problem(type="undecodable-image", title="Undecodable image", status=UNREADABLE, detail=detail)
    return ImageAnswer(error=problem)
