"""Zero-shot figures of a build from the features of its data sets: accuracy and expected calibration error."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor

from adapters.training.corpus import read_captions, templates
from adapters.training.optimize import encode_bucketed
from adapters.training.tower import encode_features, tokenizer
from adapters.training.trunk import feature_path

SINGLE_TEMPLATE = "a photo of a {}."
CHUNK = 512
BINS = 15


@dataclass(frozen=True)
class ImageSet:
    """Trunk features [N, 1280] of a labelled set, and the class index [N] of each image."""

    name: str
    features: Tensor
    classes: list[str]
    labels: Tensor


def load_set(work: Path, group: str, name: str) -> ImageSet:
    """A development or evaluation set, as the feature phase stored it."""
    record = torch.load(feature_path(work, group, name), weights_only=True)
    classes = sorted(set(record["classes"]))
    index = {label: number for number, label in enumerate(classes)}
    labels = torch.tensor([index[label] for label in record["classes"]])
    return ImageSet(name, record["features"].float(), classes, labels)


@torch.inference_mode()
def class_weights(model: CLIP, classes: list[str], formats: list[str]) -> Tensor:
    """Zero-shot classifier [C, D]: normalised mean of the text features of all templates."""
    tokenize = tokenizer()
    total = torch.zeros(len(classes), model.text_projection.shape[1])
    for form in formats:
        tokens = tokenize([form.format(name) for name in classes])
        total += torch.cat([encode_bucketed(model, part) for part in tokens.split(CHUNK)])
    return F.normalize(total, dim=-1)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error: mean gap of confidence to accuracy over 15 bins of equal width."""
    confidence, predicted = probabilities.max(1)
    correct = (predicted == labels).float()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS).index_add_(0, bins, correct - confidence)
    return float(gaps.abs().sum() / len(labels))


@torch.inference_mode()
def figures(model: CLIP, images: ImageSet, formats: list[str]) -> tuple[float, float]:
    """Top-1 accuracy and expected calibration error at the model's own scale, both in per cent."""
    weights = class_weights(model, images.classes, formats)
    logits = model.logit_scale.exp() * encode_features(model, images.features) @ weights.T
    accuracy = (logits.argmax(1) == images.labels).float().mean()
    return 100 * float(accuracy), 100 * calibration_error(logits.softmax(1), images.labels)


def report(model: CLIP, work: Path, groups: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Figures of every set of the groups, with the single template and the ensemble of 80."""
    found = {}
    for group in groups:
        for path in sorted((work / "features").glob(f"{group}-*-plain-0.pt")):
            images = load_set(work, group, path.stem.removeprefix(f"{group}-").removesuffix("-plain-0"))
            accuracy, error = figures(model, images, [SINGLE_TEMPLATE])
            ensemble_accuracy, ensemble_error = figures(model, images, templates())
            found[f"{group}/{images.name}"] = {
                "classes": len(images.classes),
                "images": len(images.labels),
                "top1": accuracy,
                "ece": error,
                "top1_80_templates": ensemble_accuracy,
                "ece_80_templates": ensemble_error,
            }
    return found


@torch.inference_mode()
def retrieval(model: CLIP, data: Path, work: Path) -> dict[str, float]:
    """Recall in per cent on Flickr8k's 1,000 test images with the first caption of each."""
    record = torch.load(feature_path(work, "source", "flickr8k"), weights_only=True)
    row = {file: number for number, file in enumerate(record["files"])}
    pairs = [(row[image], text) for image, index, text in read_captions(data, ("test",)) if index == 0]
    images = encode_features(model, record["features"][[number for number, _ in pairs]].float())
    texts = torch.cat([encode_bucketed(model, part) for part in tokenizer()([t for _, t in pairs]).split(CHUNK)])
    similarity = images @ texts.T
    found = {}
    for label, matrix in (("image_to_text", similarity), ("text_to_image", similarity.T)):
        rank = (matrix > matrix.diagonal().unsqueeze(1)).sum(1)
        for limit in (1, 5):
            found[f"{label}_r{limit}"] = 100 * float((rank < limit).float().mean())
    return found
