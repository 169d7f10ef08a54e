"""The last touches: no class may win on every image, and the logit scale fits small label sets.

The scale is chosen on small label sets of classes left out of training, and on development sets; accuracy does not
depend on it. The scale that training learns belongs to some 450 classes that have been seen; on
ten new classes it is overconfident. Captioned photographs may still show a class whose own images are left out.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP, IMAGENET_CLASSNAMES
from torch import Tensor

from adapters.training.concepts import folder_name
from adapters.training.evaluate import SINGLE_TEMPLATE, ImageSet, calibration_error, class_weights, load_set
from adapters.training.tower import encode_features
from adapters.training.trunk import feature_path

logger = logging.getLogger(__name__)

LEFT_OUT_SET = "imagenet_det200_samples"
LEFT_OUT_EVERY = 2
SETS, CLASSES = 60, 10
CENTRE_SETS = ("tiny_imagenet_train", LEFT_OUT_SET)
CENTRED_SHARE = 0.5
SCALES = np.geomspace(5, 80, 60)


def left_out_classes(work: Path) -> frozenset[str]:
    """Every second class of the detection samples that is not an ImageNet class; its images are not trained on."""
    record = torch.load(feature_path(work, "source", LEFT_OUT_SET), weights_only=True)
    known = {folder_name(name) for name in IMAGENET_CLASSNAMES}
    unknown = sorted({label for label in record["classes"] if label.lower() not in known})
    return frozenset(unknown[::LEFT_OUT_EVERY])


@torch.no_grad()
def centre_texts(model: CLIP, work: Path, photos: list[Tensor]) -> None:
    """Take half of the mean image's direction out of the text projection.

    Along it, names differ in how common they are rather than in what they show: `elephant` is far from any image, and
    on images that resemble no photograph it loses to names that are not. `photos`: features of captioned photographs.
    """
    left_out = left_out_classes(work)
    means = [encode_features(model, features).mean(0) for features in photos]
    for name in CENTRE_SETS:
        record = torch.load(feature_path(work, "source", name), weights_only=True)
        rows = [row for row, label in enumerate(record["classes"]) if label not in left_out]
        means.append(encode_features(model, record["features"][rows].float()).mean(0))
    direction = F.normalize(torch.stack(means).mean(0), dim=0)
    projection = cast(Tensor, model.text_projection)
    projection -= CENTRED_SHARE * torch.outer(projection @ direction, direction)


def _left_out_images(work: Path) -> ImageSet:
    record = torch.load(feature_path(work, "source", LEFT_OUT_SET), weights_only=True)
    classes = sorted(left_out_classes(work))
    rows = [row for row, label in enumerate(record["classes"]) if label in classes]
    labels = torch.tensor([classes.index(record["classes"][row]) for row in rows])
    return ImageSet("left_out", record["features"][rows].float(), classes, labels)


@torch.inference_mode()
def _cosines(model: CLIP, images: ImageSet) -> Tensor:
    weights = class_weights(model, images.classes, [SINGLE_TEMPLATE])
    return encode_features(model, images.features) @ weights.T


def _small_sets(cosines: Tensor, labels: Tensor, generator: np.random.Generator) -> Iterable[tuple[Tensor, Tensor]]:
    """Cosines and labels of random label sets of ten classes."""
    for _ in range(SETS):
        chosen = torch.from_numpy(generator.choice(cosines.shape[1], CLASSES, replace=False))
        rows = torch.isin(labels, chosen).nonzero().squeeze(1)
        yield cosines[rows][:, chosen], (labels[rows].unsqueeze(1) == chosen).long().argmax(1)


def _groups(model: CLIP, work: Path) -> dict[str, tuple[Tensor, Tensor]]:
    generator = np.random.default_rng(0)
    found = {}
    for images in (_left_out_images(work), load_set(work, "development", "tiny_imagenet_val")):
        drawn = list(_small_sets(_cosines(model, images), images.labels, generator))
        found[images.name] = (torch.cat([c for c, _ in drawn]), torch.cat([labels for _, labels in drawn]))
    for name in ("pacs_art_painting", "pacs_sketch"):
        images = load_set(work, "development", name)
        found[name] = (_cosines(model, images), images.labels)
    return found


def calibrate(model: CLIP, work: Path) -> dict[str, float]:
    """Set the model's logit scale to the one with the least mean calibration error; returns errors in per cent."""
    groups = _groups(model, work)
    learnt = float(model.logit_scale.detach().exp())
    table = {
        float(scale): {n: 100 * calibration_error((scale * c).softmax(1), y) for n, (c, y) in groups.items()}
        for scale in SCALES
    }
    best = min(table, key=lambda scale: sum(table[scale].values()))
    with torch.no_grad():
        model.logit_scale.fill_(float(np.log(best)))
    accuracy = {name: 100 * float((c.argmax(1) == y).float().mean()) for name, (c, y) in groups.items()}
    logger.info("logit scale %.1f (learnt %.1f); errors %s; accuracy %s", best, learnt, table[best], accuracy)
    return {"scale": best, "learnt_scale": learnt, **table[best]}
