"""A ViT-B/16 CLIP with random weights as a folder that `load_backbone` opens: for time and memory, not for accuracy."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

ARCHITECTURE = "ViT-B-16"


@contextmanager
def random_vit(architecture: str = ARCHITECTURE) -> Iterator[Path]:
    """About 600 MB in the temporary folder, removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="selftpt-vit-"))
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = open_clip.create_model(architecture, pretrained=None)
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
        preprocess = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
        config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
