"""What each trick of the text tower brings over open_clip's own `encode_text`, and that it changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from adapters.clip import Backbone, load_backbone
from adapters.text.causal import CausalBlocks
from adapters.text.features import TextFeatures
from adapters.text.passes import TextPasses
from adapters.text.templates import PLAIN_TEMPLATE
from benchmarks.report import progress

ROWS = 64
IMAGES = Path(__file__).parents[1] / "examples" / "images"
VIEWS = 64


@dataclass(frozen=True, slots=True)
class Trick:
    """Process time per prompt; least cosine and top-1 agreement with open_clip's own features."""

    name: str
    milliseconds: float
    cosine: float
    agreement: float | None


def whole(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """As open_clip does it."""
    tower = backbone.text
    parts = tower._tokens.matrices(texts)
    return torch.cat([tower._encode_text(ids) for part in parts for ids in part.split(ROWS)]).float()


def cut(backbone: Backbone, texts: Sequence[str], *, sort: bool, opened: bool) -> Tensor:
    """Cut at the longest prompt of a pass; sorted by length; with the last block looking from the end mark alone."""
    tower = backbone.text._passes._tower
    passes = TextPasses(tower, CausalBlocks.of(tower) if opened else None, device=backbone.device)
    ids_NL = torch.cat(list(backbone.text._tokens.matrices(texts)))
    end_N = (ids_NL == backbone.text.eot).int().argmax(dim=-1)
    order = end_N.argsort() if sort else torch.arange(len(end_N))
    longest = None if sort else int(end_N.max())
    parts = []
    for rows in order.split(ROWS):
        length = (int(end_N[rows].max()) if longest is None else longest) + 1
        parts.append(passes._text_rows(ids_NL[rows][:, :length], end_N[rows], None))
    return torch.cat(parts)[order.argsort()]


def photo_features(backbone: Backbone) -> Tensor:
    views = [backbone.preprocess.views(Image.open(file), VIEWS, seed=1) for file in sorted(IMAGES.glob("*.jpg"))]
    return torch.cat([backbone.image.encode(some) for some in views])


def tricks(spec: str, names: Sequence[str]) -> list[Trick]:
    torch.set_num_threads(1)
    texts = [PLAIN_TEMPLATE.replace("{}", name) for name in names]
    backbone = load_backbone(spec, device="cpu", precision="fp32")
    photos_BD = photo_features(backbone) if spec == "bundled" else None
    few = texts if spec == "bundled" else texts[:: max(1, len(texts) // 128)]
    remembered = backbone.text.remembering(TextFeatures(1 << 28, fingerprint="benchmark"))
    remembered.encode_texts(texts)
    reference_ND = F.normalize(no_grad(lambda: backbone.text.encode_texts(texts)), dim=-1)
    own_ND = F.normalize(no_grad(lambda: whole(backbone, few)), dim=-1)
    steps: list[tuple[str, Sequence[str], Callable[[], Tensor]]] = [
        ("open_clip's encode_text", few, lambda: whole(backbone, few)),
        ("cut at the longest prompt", few, lambda: cut(backbone, few, sort=False, opened=False)),
        ("sorted, cut pass by pass", texts, lambda: cut(backbone, texts, sort=True, opened=False)),
        ("last block from the end mark alone", texts, lambda: cut(backbone, texts, sort=True, opened=True)),
        ("shared beginnings (served, fp32)", texts, lambda: backbone.text.encode_texts(texts)),
        ("remembered", texts, lambda: remembered.encode_texts(texts)),
    ]
    found = [measured(name, some, run, own_ND if some is few else reference_ND, photos_BD) for name, some, run in steps]
    half = load_backbone(spec, device="cpu", precision="bf16")
    run = lambda: half.text.encode_texts(texts)  # noqa: E731  # as above
    return [*found[:-1], measured("the same in bf16", texts, run, reference_ND, photos_BD), found[-1]]


def no_grad(run: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return run()


def measured(
    name: str, texts: Sequence[str], run: Callable[[], Tensor], expected_ND: Tensor, photos_BD: Tensor | None
) -> Trick:
    best, features_ND = float("inf"), expected_ND
    for _ in range(3):
        began = time.process_time()
        features_ND = F.normalize(no_grad(run), dim=-1)
        best = min(best, time.process_time() - began)
        if best > 10:
            break
    cosine = float((features_ND * expected_ND).sum(dim=-1).min())
    agreement = None
    if photos_BD is not None:
        same = (photos_BD @ features_ND.T).argmax(dim=1) == (photos_BD @ expected_ND.T).argmax(dim=1)
        agreement = float(same.float().mean())
    progress(f"{name}: {1000 * best / len(texts):.3f} ms a prompt, least cosine {cosine:.6f}")
    return Trick(name, 1000 * best / len(texts), cosine, agreement)
