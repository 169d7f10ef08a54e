"""Loads backbones. The only importer of open_clip outside offline training."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from adapters.calibration import ScaleLaw, find_law
from adapters.checkpoint import SourcePrompts, find_source_prompts
from adapters.errors import BackboneError
from adapters.text.tower import TextTower
from adapters.vision.opening import open_tokens
from adapters.vision.pixels import Preprocess
from adapters.vision.sequence import TokenTower
from adapters.vision.tower import ImageTower

BUNDLED = "bundled"
BUNDLED_DIR = Path(__file__).parent / "bundled"
MATRIX_DIMENSIONS = 4
"""Weights with this many dimensions belong to convolutions."""

PLAIN_MODELS = {"CLIP", "CustomTextCLIP"}
"""Models of open_clip whose image features are what their image tower returns."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A loaded, frozen CLIP model. `fingerprint` is the SHA-256 of its weights and preprocessing."""

    name: str
    fingerprint: str
    preprocess: Preprocess
    image: ImageTower
    text: TextTower
    logit_scale: float
    embed_dim: int
    device: torch.device
    precision: str
    source: SourcePrompts | None = field(default=None, repr=False)
    law: ScaleLaw | None = field(default=None, repr=False)
    """How the logit scale follows from a label set, if that was learnt for this backbone."""

    @property
    def source_prompts(self) -> str:
        """Name of the source prompts that belong to this backbone, or `none`."""
        return self.source.name if self.source is not None else "none"


def load_backbone(
    spec: str = BUNDLED, *, device: str = "auto", precision: str = "auto", source_dir: Path | None = None
) -> Backbone:
    """`bundled`, a folder in open_clip's format, or `architecture:tag` / `architecture:checkpoint file`.

    Takes seconds and blocks. Raises `BackboneError` with what to do when the model cannot be had.
    """
    target = choose_device(device)
    dtype, precision = choose_precision(precision, target)
    library = _open_clip()
    model, transform, tokenizer = _create(library, spec)
    return open_backbone(
        model, transform, tokenizer, name=spec, device=target, dtype=dtype, precision=precision, source_dir=source_dir,
        folder=_folder(spec),
    )  # fmt: skip


def open_backbone(
    model: Any,
    transform: Any,
    tokenizer: Any,
    *,
    name: str,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    precision: str = "fp32",
    source_dir: Path | None = None,
    folder: Path | None = None,
) -> Backbone:
    """A backbone from an open_clip model, its evaluation transform and its tokenizer, already in memory. `folder` is
    where it came from, if from a folder: a token head may lie there."""
    device = device or torch.device("cpu")
    preprocess = _split_transform(transform)
    fingerprint = _fingerprint(model, preprocess)
    model = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
    if any(p.ndim == MATRIX_DIMENSIONS for p in model.visual.parameters()):
        model.visual.to(memory_format=torch.channels_last)
    text = TextTower(model, tokenizer, device=device)
    tokens, closed = _open_tokens(model.visual, folder, fingerprint)
    image = ImageTower(
        model.encode_image,
        preprocess.mean,
        preprocess.std,
        device=device,
        dtype=dtype,
        tokens=tokens,
        closed=closed,
        visual=model.visual if type(model).__name__ in PLAIN_MODELS else None,
    )
    embed_dim = int(text.encode_texts(["a"]).shape[1])
    text.prompts_encoded = 0  # that probe served nobody
    scale = float(model.logit_scale.exp())
    return Backbone(
        name=name,
        fingerprint=fingerprint,
        preprocess=preprocess,
        image=image,
        text=text,
        logit_scale=scale,
        embed_dim=embed_dim,
        device=device,
        precision=precision,
        source=find_source_prompts(fingerprint, source_dir),
        law=find_law(fingerprint, source_dir),
    )


def _open_tokens(visual: Any, folder: Path | None, fingerprint: str) -> tuple[TokenTower | None, str]:
    """The token path of an image tower, or the reason why it has none."""
    try:
        return open_tokens(visual, folder=folder, fingerprint=fingerprint), ""
    except BackboneError as error:
        return None, str(error)


def choose_device(wanted: str = "auto") -> torch.device:
    """`auto` takes CUDA, then MPS, then CPU. Raises `BackboneError` for a device that is not there."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"device {wanted!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def choose_precision(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """`auto` is bf16 on CUDA devices that have it, else fp32. fp16 is refused on the CPU, where it is 100x slower."""
    if wanted == "auto":
        wanted = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted not in known or (wanted == "fp16" and device.type == "cpu"):
        raise BackboneError(f"precision {wanted!r} is not available on {device.type}; choose fp32 or bf16")
    return known[wanted], wanted


def _open_clip() -> Any:
    """Imported on first use: it takes seconds, and the command line must answer `--help` at once."""
    try:
        import open_clip  # noqa: PLC0415  # late on purpose
    except RuntimeError as error:
        raise BackboneError(
            f"open_clip cannot be imported ({error}). torch and torchvision do not match: install both in one command, "
            "e.g. pip install --force-reinstall torch torchvision"
        ) from error
    return open_clip


def _create(library: Any, spec: str) -> tuple[nn.Module, Any, Any]:
    name, tag = _model_name(library, spec)
    try:
        model, _, transform = library.create_model_and_transforms(name, pretrained=tag)
        return model, transform, library.get_tokenizer(name)
    except Exception as error:  # whatever the library, its downloader or torch.load raise, told as one thing
        raise BackboneError(
            f"backbone {spec!r} cannot be loaded: {type(error).__name__}: {error}. Without access to a model hub give "
            "a local checkpoint as architecture:file, a folder in open_clip format, or use the backbone 'bundled'."
        ) from error


def _folder(spec: str) -> Path | None:
    if spec == BUNDLED:
        return BUNDLED_DIR
    folder = Path(spec.removeprefix("local-dir:"))
    return folder if folder.is_dir() else None


def _model_name(library: Any, spec: str) -> tuple[str, str | None]:
    if spec == BUNDLED:
        return f"local-dir:{BUNDLED_DIR}", None
    if spec.startswith(("local-dir:", "hf-hub:")):
        return spec, None
    if Path(spec).is_dir():
        return f"local-dir:{Path(spec).resolve()}", None
    architecture, _, tag = spec.partition(":")
    known: list[str] = library.list_models()
    if architecture not in known:
        near = ", ".join(difflib.get_close_matches(architecture, known, n=3)) or "see open_clip.list_models()"
        raise BackboneError(f"backbone {spec!r}: no architecture {architecture!r} and no such folder (near: {near})")
    tags: list[str] = library.list_pretrained_tags_by_model(architecture)
    if not tag or (tag not in tags and not Path(tag).is_file()):
        raise BackboneError(f"backbone {spec!r}: no pretrained tag or file {tag!r} (tags: {', '.join(tags) or 'none'})")
    return architecture, tag


def _split_transform(transform: Any) -> Preprocess:
    """open_clip's evaluation transform ends with ToTensor and Normalize; what stands before them makes the pixels."""
    *geometry, _, normalize = transform.transforms
    resize = type(transform)(geometry)
    probe = resize(Image.new("RGB", (64, 48)))
    return Preprocess(probe.height, tuple(normalize.mean), tuple(normalize.std), resize)


def _fingerprint(model: nn.Module, preprocess: Preprocess) -> str:
    digest = hashlib.sha256()
    facts: Mapping[str, object] = {"size": preprocess.size, "mean": preprocess.mean, "std": preprocess.std}
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for step in preprocess.resize.transforms:  # type: ignore[attr-defined]  # a torchvision Compose
        plain = {key: str(value) for key, value in vars(step).items() if not key.startswith("_")}
        digest.update(f"{type(step).__name__}:{sorted(plain.items())}".encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def ensemble_templates() -> tuple[str, ...]:
    """The 80 ImageNet templates of CLIP (arXiv 2103.00020) as `{}` strings, from open_clip's own list."""
    return tuple(template("{}") for template in _open_clip().OPENAI_IMAGENET_TEMPLATES)
