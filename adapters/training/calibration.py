"""Learns how a backbone's logit scale should follow from a label set, on many label sets drawn from labelled images:
`python -m adapters.training.calibration --help`.

Tensor suffixes: N images, C classes, D joint width, R label sets of one group, K scales, G confidence bins.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF  # torchvision's own convention

from adapters.base import LabelSet
from adapters.calibration import USUAL_CLASSES, USUAL_NEAREST, Geometry, ScaleLaw, geometry
from adapters.clip import Backbone, load_backbone
from adapters.evaluation.datasets import FeatureSet, ImageSet, read_folder
from adapters.methods.zero_shot import ZeroShot, ZeroShotSettings
from adapters.training.calibrate import LEFT_OUT_EVERY
from adapters.training.concepts import folder_name
from adapters.training.views import VIEWS

logger = logging.getLogger(__name__)

SIZES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
LARGE = 50
REPEATS = 24
SCALES_K = torch.logspace(math.log10(4), math.log10(200), 60)
BINS = 15
SLACK = 2.0
"""A law may leave the range of scales that single groups wanted by this factor, no further."""
COUNT_PRICE, NEAREST_PRICE = 0.15, 0.05
"""Calibration error, in points, that a coefficient of 1 must save to be worth it."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Label sets of one size out of one set of images. gaps_RKG: confidence minus correct answers, summed over the
    images of a bin, for each label set and scale; errors are taken over the images of all label sets together."""

    name: str
    seen: tuple[Geometry, ...]
    gaps_RKG: Tensor
    images: int

    def error(self, law: ScaleLaw) -> float:
        """Expected calibration error in percent."""
        step = (SCALES_K[1] / SCALES_K[0]).log()
        place_R = (torch.tensor([law.scale(seen) for seen in self.seen]) / SCALES_K[0]).log() / step
        place_R = place_R.clamp(0, len(SCALES_K) - 1.001)
        low_R, rest_R1 = place_R.long(), (place_R % 1)[:, None]
        rows = torch.arange(len(low_R))
        gaps_RG = (1 - rest_R1) * self.gaps_RKG[rows, low_R] + rest_R1 * self.gaps_RKG[rows, low_R + 1]
        return 100 * float(gaps_RG.sum(dim=0).abs().sum()) / self.images

    def best_scale(self) -> float:
        return float(SCALES_K[int(self.gaps_RKG.sum(dim=0).abs().sum(dim=-1).argmin())])


def bin_gaps(cosines_NC: Tensor, labels_N: Tensor) -> Tensor:
    """[K, G] for one label set."""
    rows = []
    for scale in SCALES_K.tolist():
        confidence_N, predicted_N = (scale * cosines_NC).softmax(dim=-1).max(dim=-1)
        bin_N = (confidence_N * BINS).long().clamp(max=BINS - 1)
        rows.append(torch.zeros(BINS).index_add_(0, bin_N, confidence_N - (predicted_N == labels_N).float()))
    return torch.stack(rows)


def draw_groups(data: FeatureSet, weights_CD: Tensor, generator: torch.Generator, *, least: int = 2) -> Iterator[Group]:
    """Random label sets of each size from `least` on that the classes allow, and all classes at once."""
    classes = len(weights_CD)
    for size in (*(size for size in SIZES if least <= size < classes), classes):
        seen, gaps, images = [], [], 0
        for _ in range(REPEATS if size < classes else 1):
            rows = torch.randperm(classes, generator=generator)[:size]
            place_C = torch.full((classes,), -1).index_copy_(0, rows, torch.arange(size))
            labels_N = place_C[data.labels_N]
            inside = labels_N >= 0
            seen.append(geometry(weights_CD[rows]))
            gaps.append(bin_gaps(data.features_ND[inside] @ weights_CD[rows].T, labels_N[inside]))
            images += int(inside.sum())
        if images:
            yield Group(f"{data.name}, {size} classes", tuple(seen), torch.stack(gaps), images)


def learn_law(groups: Sequence[Group], fingerprint: str) -> ScaleLaw:
    """The law with the least mean calibration error over the groups, by pattern search from the best single scale.
    Coefficients have a price, so that they stay zero where they bring nothing."""
    wanted = [group.best_scale() for group in groups]
    base = ScaleLaw(fingerprint, 0.0, 0.0, 0.0, round(min(wanted) / SLACK, 3), round(max(wanted) * SLACK, 3))

    def law(point: Sequence[float]) -> ScaleLaw:
        offset, count, nearest = (round(value, 5) for value in point)
        return replace(base, offset=offset, count=count, nearest=nearest)

    def error(point: Sequence[float]) -> float:
        return sum(group.error(law(point)) for group in groups) / len(groups)

    def cost(point: Sequence[float]) -> float:
        return error(point) + COUNT_PRICE * abs(point[1]) + NEAREST_PRICE * abs(point[2])

    constant = min(([math.log(scale), 0.0, 0.0] for scale in SCALES_K.tolist()), key=cost)
    best = searched(cost, constant, [0.08, 0.04, 0.2])
    label_sets = sum(len(group.seen) for group in groups)
    return replace(
        law(best), label_sets=label_sets, error=round(error(best), 3), constant_error=round(error(constant), 3)
    )


def searched(cost: Callable[[Sequence[float]], float], start: Sequence[float], steps: Sequence[float]) -> list[float]:
    """Pattern search: tries each coordinate up and down, halves the steps when none helps."""
    best, least, factor = list(start), cost(start), 1.0
    while factor > 0.05:
        before = least
        for axis, sign in product(range(len(steps)), (1, -1)):
            tried = [*best]
            tried[axis] += sign * steps[axis] * factor
            if (found := cost(tried)) < least:
                best, least = tried, found
        factor *= 1.0 if least < before else 0.5
    return best


def viewed(images: ImageSet, backbone: Backbone, view: str, *, seed: int = 0, batch: int = 64) -> FeatureSet:
    """Image features of one view of the images: plain, low resolution, pencil drawing."""
    generator, size = np.random.default_rng(seed), backbone.preprocess.size
    parts = []
    for start in range(0, len(images.paths), batch):
        pixels = []
        for path in images.paths[start : start + batch]:
            with Image.open(path) as image:
                pixels.append(TF.pil_to_tensor(VIEWS[view](image.convert("RGB"), size, generator)))
        parts.append(backbone.image.encode(torch.stack(pixels)).cpu())
    return FeatureSet(f"{images.name} {view}", images.classes, torch.cat(parts), torch.tensor(images.labels))


def left_out(images: ImageSet) -> ImageSet:
    """The classes whose images the bundled backbone's training did not see (`adapters.training.calibrate`)."""
    known = {folder_name(name) for name in IMAGENET_CLASSNAMES}
    names = sorted(name for name in images.classes if name.lower() not in known)[::LEFT_OUT_EVERY]
    kept = [(path, images.classes[row]) for path, row in zip(images.paths, images.labels, strict=True)]
    kept = [(path, name) for path, name in kept if name in names]
    paths, labels = tuple(path for path, _ in kept), tuple(names.index(name) for _, name in kept)
    return ImageSet(f"{images.name}, left out", tuple(names), paths, labels)


def zero_shot_rows(backbone: Backbone, classes: Sequence[str]) -> Tensor:
    return ZeroShot(ZeroShotSettings(calibrated=False)).adapt(LabelSet.of(*classes), backbone).weights.cpu()


def families(arguments: argparse.Namespace, backbone: Backbone) -> Iterator[tuple[FeatureSet, int]]:
    """Image features, and the least number of classes that is drawn of them."""
    for least, folders in ((2, arguments.data), (LARGE, arguments.data_large)):
        for folder in folders:
            yield viewed(read_folder(folder, per_class=arguments.per_class), backbone, "plain"), least
    for folder in arguments.data_in_views:
        images = read_folder(folder, per_class=arguments.per_class)
        for view in ("plain", "low", "sketch"):
            yield viewed(left_out(images) if arguments.left_out else images, backbone, view), 2


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m adapters.training.calibration", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of class folders, as they are")
    parser.add_argument("--data-in-views", type=Path, nargs="*", default=[], help="also at low resolution and drawn")
    parser.add_argument(
        "--left-out", action="store_true", help="of the latter, only classes not trained on: for the bundled backbone"
    )
    parser.add_argument(
        "--data-large", type=Path, nargs="*", default=[], help=f"only drawn in label sets of {LARGE} classes or more"
    )
    parser.add_argument("--per-class", type=int, default=None, help="images per class; default all")
    parser.add_argument("--backbone", default="bundled")
    parser.add_argument("--out", type=Path, required=True, help="folder for the law, best that of the source prompts")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    backbone = load_backbone(arguments.backbone)
    generator = torch.Generator().manual_seed(0)
    groups: list[Group] = []
    for data, least in families(arguments, backbone):
        for group in draw_groups(data, zero_shot_rows(backbone, data.classes), generator, least=least):
            logger.info("%s: best scale %.1f", group.name, group.best_scale())
            groups.append(group)
    law = learn_law(groups, backbone.fingerprint)
    law.save(arguments.out)
    logger.info("scale of ten classes %.1f; %s", law.scale(Geometry(USUAL_CLASSES, USUAL_NEAREST)), law)


if __name__ == "__main__":
    main()
