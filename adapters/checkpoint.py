"""Class states and source prompts to bytes and back, as safetensors. Never pickle; all is checked on the way in."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from adapters.base import ClassState, InfoValue, content_hash
from adapters.errors import StateError

STATE_SCHEMA = 1
"""Raised whenever the meaning of stored states changes; it is part of every key, so old states are simply not found."""

SOURCE_DIR = Path(__file__).parent / "source_prompts"
_HEADER = struct.Struct("<4sHxxIQ")
_MAGIC = b"STPT"
_UNIT_TOLERANCE = 1e-3
_UNREADABLE = (KeyError, ValueError, TypeError, AssertionError, RuntimeError, struct.error, safetensors.SafetensorError)
"""What reading bytes of the right checksum can still raise: they may be foreign, or made to hurt."""


def state_to_bytes(state: ClassState) -> bytes:
    """Header (magic, schema, CRC-32, length) and a safetensors body whose metadata carries the plain fields."""
    tensors = {"weights": state.weights, "background": state.background}
    tensors.update({f"extras.{key}": value for key, value in state.extras.items()})
    # cloned, for safetensors refuses tensors that share memory, and a background may be a view of the weights
    tensors = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    plain = {
        "adapter": state.adapter,
        "version": state.version,
        "logit_scale": state.logit_scale,
        "info": dict(state.info),
    }
    body = safetensors.torch.save(tensors, metadata={"state": json.dumps(plain)})
    return _HEADER.pack(_MAGIC, STATE_SCHEMA, zlib.crc32(body), len(body)) + body


def state_from_bytes(data: bytes) -> ClassState:
    """Raises `StateError` for anything that `state_to_bytes` of this version did not write."""
    body = _checked_body(data)
    try:
        tensors = safetensors.torch.load(body)
        plain = json.loads(_metadata(body)["state"])
        extras = {key.removeprefix("extras."): value for key, value in tensors.items() if key.startswith("extras.")}
        state = ClassState(
            adapter=str(plain["adapter"]),
            version=str(plain["version"]),
            weights=tensors["weights"],
            background=tensors["background"],
            logit_scale=float(plain["logit_scale"]),
            extras=extras,
            info=_info(plain["info"]),
        )
        _check_weights(state)
    except _UNREADABLE as error:
        raise StateError(f"class state does not decode: {type(error).__name__}: {error}") from error
    return state


def _checked_body(data: bytes) -> bytes:
    if len(data) < _HEADER.size:
        raise StateError(f"class state is truncated: {len(data)} bytes")
    magic, schema, crc, length = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != _MAGIC:
        raise StateError("these bytes are no class state")
    if schema != STATE_SCHEMA:
        raise StateError(f"class state has schema {schema}, this version reads {STATE_SCHEMA}")
    if len(body) != length or zlib.crc32(body) != crc:
        raise StateError("class state is damaged: length or checksum differs")
    return body


def _metadata(body: bytes) -> Mapping[str, str]:
    """The string metadata of a safetensors body, which its loader does not hand out for bytes."""
    (size,) = struct.unpack_from("<Q", body)
    header: dict[str, Any] = json.loads(body[8 : 8 + size])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


def _info(raw: Any) -> dict[str, InfoValue]:
    return {str(key): value for key, value in dict(raw).items() if isinstance(value, (str, int, float, bool))}


def _check_weights(state: ClassState) -> None:
    if state.weights.ndim != 2 or not state.weights.is_floating_point() or not math.isfinite(state.logit_scale):
        raise StateError("class state holds no matrix of class weights with a scale")
    norms = state.weights.norm(dim=-1)
    unit = torch.allclose(norms, torch.ones_like(norms), atol=_UNIT_TOLERANCE)  # false for NaN as well
    if not unit or state.background.shape != state.weights.shape[1:]:
        raise StateError("class state holds rows that are not unit vectors")
    if not all(bool(one.isfinite().all()) for one in (state.background, *state.extras.values())):
        raise StateError("class state holds numbers that are not finite")


@dataclass(frozen=True, slots=True, eq=False)
class SourcePrompts:
    """What stage 1 learnt on source data for one backbone: context vectors and projection head."""

    name: str
    fingerprint: str
    ctx_MW: Tensor  # shape suffix
    head: Mapping[str, Tensor]
    settings: Mapping[str, InfoValue]
    image_mean_D: Tensor | None = None
    """Mean of the unit features of the source images: the direction that all images share."""

    @property
    def version(self) -> str:
        """Hash of every number in it that decides class weights."""
        tensors = self._tensors()
        return content_hash({key: zlib.crc32(value.numpy().tobytes()) for key, value in tensors.items()})[:16]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(
            {k: v.float().contiguous() for k, v in self._tensors().items()}, folder / "weights.safetensors"
        )
        config = {"name": self.name, "fingerprint": self.fingerprint, "settings": dict(self.settings)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _tensors(self) -> dict[str, Tensor]:
        mean = {} if self.image_mean_D is None else {"image_mean": self.image_mean_D}
        return {"ctx": self.ctx_MW, **{f"head.{key}": value for key, value in self.head.items()}, **mean}


def load_source_prompts(folder: Path) -> SourcePrompts:
    """Raises `StateError` if the folder does not hold source prompts."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = safetensors.torch.load_file(folder / "weights.safetensors")
        head = {key.removeprefix("head."): value for key, value in tensors.items() if key.startswith("head.")}
        return SourcePrompts(
            name=config["name"],
            fingerprint=config["fingerprint"],
            ctx_MW=tensors["ctx"],
            head=head,
            settings=_info(config["settings"]),
            image_mean_D=tensors.get("image_mean"),
        )
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise StateError(f"{folder} does not hold source prompts: {error}") from error


def find_source_prompts(fingerprint: str, folder: Path | None = None) -> SourcePrompts | None:
    """Source prompts made for this very backbone, from `folder` first, then from those shipped with the package."""
    for root in (folder, SOURCE_DIR):
        if root is None or not root.is_dir():
            continue
        for candidate in sorted(root.glob("**/config.json")):
            prompts = load_source_prompts(candidate.parent)
            if prompts.fingerprint == fingerprint:
                return prompts
    return None


def settings_version(method: str, settings: object, *parts: str) -> str:
    """Version of an adapter: hash of the method, its settings (a dataclass) and whatever else decides its numbers."""
    return content_hash({"method": method, "settings": asdict(settings), "parts": list(parts)})[:16]  # type: ignore[call-overload]  # any dataclass
