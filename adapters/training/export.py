"""Writes a build in open_clip's own format: configuration, half-precision weights, reference embeddings, card."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip import CLIP
from PIL import Image
from safetensors.torch import save_file

from adapters.training.tower import MODEL_CONFIG
from adapters.training.trunk import IMAGE_SIZE, MEAN, STD

logger = logging.getLogger(__name__)

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
REFERENCE_FILE = "reference.json"
CARD_FILE = "MODEL_CARD.md"
CARD_TEMPLATE = Path(__file__).with_name("model_card.md")
REFERENCE_PROMPTS = (
    "a photo of a dog.",
    "a photo of a steam locomotive.",
    "a pencil drawing of a lighthouse.",
    "two children playing football on a beach",
    "zebra",
)


def export_weights(model: CLIP, folder: Path) -> None:
    """Configuration and float16 weights, as `open_clip.create_model_and_transforms("local-dir:...")` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": preprocess}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    logger.info("%s: %.1f MB", folder / WEIGHTS_FILE, (folder / WEIGHTS_FILE).stat().st_size / 1e6)


def reference_image() -> Image.Image:
    """A generated picture: colour gradients under a grid of discs."""
    y_HW, x_HW = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / IMAGE_SIZE
    disc_HW = (np.mod(x_HW * 4, 1) - 0.5) ** 2 + (np.mod(y_HW * 4, 1) - 0.5) ** 2 < 0.1
    pixels_HWC = np.stack([255 * x_HW, 255 * y_HW, 255 * disc_HW], axis=-1)
    return Image.fromarray(pixels_HWC.round().astype(np.uint8))


@torch.inference_mode()
def export_reference(folder: Path) -> None:
    """Embeddings of generated inputs, computed by open_clip from the files just written."""
    source = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(source)
    tokenize = open_clip.get_tokenizer(source)
    model.eval()
    image_D = model.encode_image(preprocess(reference_image()).unsqueeze(0), normalize=True)[0]
    texts_BD = model.encode_text(tokenize(list(REFERENCE_PROMPTS)), normalize=True)
    record = {
        "prompts": REFERENCE_PROMPTS,
        "image": [round(value, 5) for value in image_D.tolist()],
        "texts": [[round(value, 5) for value in row] for row in texts_BD.tolist()],
    }
    (folder / REFERENCE_FILE).write_text(json.dumps(record) + "\n", encoding="utf-8")


def figures_table(figures: dict[str, dict[str, float]]) -> str:
    """Markdown table of the figures of all sets."""
    lines = [
        "| set | classes | images | top-1 | ECE | top-1, 80 templates | ECE, 80 templates |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in figures.items():
        lines.append(
            f"| {name} | {row['classes']} | {row['images']} | {row['top1']:.1f} | {row['ece']:.1f} "
            f"| {row['top1_80_templates']:.1f} | {row['ece_80_templates']:.1f} |"
        )
    return "\n".join(lines)


def export_card(folder: Path, report: dict[str, Any]) -> None:
    """The model card, with the figures of this build filled in."""
    card = CARD_TEMPLATE.read_text(encoding="utf-8")
    card = card.replace("{figures}", figures_table(report["figures"]))
    for name in ("date", "retrieval", "scale", "captions", "size"):
        card = card.replace("{" + name + "}", str(report[name]))
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
