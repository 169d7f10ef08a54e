"""Trains the bundled backbone's token head: `python -m adapters.training.token_head --data DATA --work WORK`.

The backbone is frozen. The head learns to say what the plain path says and to be right about class names and captions;
often it has to without the plain path's help, so that what joins its tokens matters. Resumes from the work folder.
"""

from __future__ import annotations

import argparse
import copy
import logging
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn
from torchvision.transforms import functional as TF  # torchvision's own convention

from adapters.clip import BUNDLED_DIR, Backbone, load_backbone
from adapters.training.export import reference_image
from adapters.training.token_head_data import MapEnd, SourceImages, class_texts
from adapters.training.token_head_fit import Lesson, Recipe, embed, train
from adapters.training.token_head_maps import Maps, MapStore
from adapters.vision.token_head import HeadShape, TokenHead, save_head

logger = logging.getLogger(__name__)

CHUNK = 256
LEARNT_WITH, SERVED_WITH = 0.75, 1.0
"""Weight of the plain embedding while the head learns, and as it is served: chosen on the development sets."""
Figures = dict[str, dict[str, float]]


@torch.inference_mode()
def figures(head: TokenHead, end: MapEnd, sets: list[Maps], backbone: Backbone) -> Figures:
    """Zero-shot top-1 in per cent of each set: plain path, token path without prompts, transformer alone."""
    found: Figures = {}
    for images in sets:
        names = sorted(set(images.classes))
        labels = torch.tensor([names.index(name) for name in images.classes])
        texts_CD = class_texts(backbone, names)
        right = torch.zeros(3)
        for maps, wanted in zip(images.maps.split(CHUNK), labels.split(CHUNK), strict=True):
            behind, plain = end(maps)
            paths: list[Tensor] = [plain, embed(head, behind, plain), embed(head, behind, torch.zeros_like(plain))]
            right += torch.stack([((path @ texts_CD.T).argmax(-1) == wanted).sum() for path in paths])
        shares = (100 * right / len(labels)).tolist()
        found[images.name] = dict(zip(("plain", "tokens", "transformer_alone"), shares, strict=True))
    return found


def export(head: TokenHead, folder: Path, fingerprint: str, found: Figures) -> None:
    """The files of the head, with the figures and, for tests, the embedding of a generated image."""
    facts: dict[str, object] = {"development": found}
    save_head(head, folder, backbone=fingerprint, facts=facts)
    image = load_backbone(str(folder), device="cpu", precision="fp32").image
    pixels = TF.pil_to_tensor(reference_image()).unsqueeze(0)
    facts["reference"] = [round(value, 5) for value in image.encode_prompted(pixels, None)[0].tolist()]
    save_head(head, folder, backbone=fingerprint, facts=facts)


def build(data: Path, work: Path, folder: Path, recipe: Recipe) -> Figures:
    """Maps, training, figures, files."""
    work.mkdir(parents=True, exist_ok=True)
    backbone = load_backbone(str(folder), device="cpu", precision="fp32")
    visual: nn.Module = open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval().visual
    visual.requires_grad_(False)
    store = MapStore(data, work, copy.deepcopy(visual.trunk))  # type: ignore[arg-type]  # a module, typed as a tensor
    source, development = store.source(), store.development()
    images, end = SourceImages(source, data, backbone), MapEnd(visual)
    channels, height, width = end(source[0].maps[:1])[0].shape[1:]
    shape = HeadShape(channels=channels, positions=height * width, embed_dim=backbone.embed_dim,
                      base_weight=LEARNT_WITH)  # fmt: skip
    snapshot = work / f"token-head-{backbone.fingerprint[:12]}-{recipe.steps}.pt"
    head = train(Lesson(images, backbone.logit_scale, recipe), end, shape, snapshot)
    head.shape = replace(shape, base_weight=SERVED_WITH)
    found = figures(head, end, development, backbone)
    for name, row in found.items():
        logger.info("%s: %s", name, {path: round(value, 1) for path, value in row.items()})
    export(head, folder, backbone.fingerprint, found)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Train the head of the backbone in a folder; the log goes to stderr and to the work folder."""
    parser = argparse.ArgumentParser(prog="python -m adapters.training.token_head", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with source and development")
    parser.add_argument("--work", type=Path, required=True, help="maps, snapshot and log; about 1 GB")
    parser.add_argument("--backbone", type=Path, default=BUNDLED_DIR, help="its folder; the head is written there")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(options.work / "token_head.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    torch.set_num_threads(1)
    build(options.data, options.work, options.backbone, Recipe(steps=options.steps))


if __name__ == "__main__":
    main()
