"""Quantised prompts (arXiv 2407.10704): training with a quantised forward pass, and storage as packed bytes.

Tensor suffixes: K levels, N scalars.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import torch
from torch import Tensor

from adapters.errors import StateError
from adapters.quantization.codebook import Codebook, check_bits, dequantize, fit_codebook, moments, quantize

__all__ = [
    "AfterTraining", "Codebook", "StraightThrough", "dequantize", "fit_codebook", "pack", "payload_bytes", "quantize",
    "unpack",
]  # fmt: skip

INTERVAL, THRESHOLD = 50, 0.01
"""Least steps between two clusterings and least drift of the histogram, in nats. The paper gives neither."""

_MAGIC, _VERSION = b"STQP", 1
_HEAD = struct.Struct("<4sBBBx")  # magic, version, bits, dimensions
_CRC = struct.Struct("<I")
_MAX_DIMENSIONS = 8
_HALF_MAX = 65504.0


class StraightThrough:
    """Quantises weights in the forward pass; the gradient passes as if it had not. One instance follows one tensor
    through one fit.

    Constrained adaptive clustering: the levels are made anew only if at least `interval` changes of the weights have
    passed and the histogram of their indices has drifted by more than `threshold` (KL, current against that of the
    last clustering, under the same levels). Mean and deviation always follow the weights, without gradient.
    """

    def __init__(self, bits: int, *, interval: int = INTERVAL, threshold: float = THRESHOLD) -> None:
        check_bits(bits)
        self.bits, self.interval, self.threshold = bits, interval, threshold
        self.clusterings = 0
        self.codebook: Codebook | None = None
        self._seen = self._cached_K = torch.empty(0)
        self._steps = 0

    def __call__(self, weights: Tensor) -> Tensor:
        """The nearest levels, in the shape of the weights; with respect to them the gradient is the identity."""
        fixed = weights.detach()
        codebook = self.follow(fixed)
        return dequantize(quantize(fixed, codebook), codebook).to(weights.dtype) + (weights - fixed)

    def seal(self, weights: Tensor) -> Tensor:
        """The weights as they come back from storage under the present levels."""
        return unpack(pack(weights, self.bits, self.follow(weights.detach()))).to(weights.device)

    def follow(self, weights: Tensor) -> Codebook:
        """The codebook for these weights. A call with the weights of the last call counts as the same step, so that
        the chunks of one step see the same levels."""
        if self.codebook is not None and torch.equal(weights, self._seen):
            return self.codebook
        self._seen = weights.clone()
        self._steps += 1
        if self.codebook is None:
            return self._cluster(weights)
        self.codebook = Codebook(self.codebook.levels_K, *moments(weights))
        if self._steps >= self.interval:
            current_K = _histogram(weights, self.codebook)
            if divergence(current_K, self._cached_K) > self.threshold:
                return self._cluster(weights)
        return self.codebook

    def _cluster(self, weights: Tensor) -> Codebook:
        self.codebook = fit_codebook(weights, self.bits)
        self._cached_K = _histogram(weights, self.codebook)
        self._steps = 0
        self.clusterings += 1
        return self.codebook


class AfterTraining:
    """Leaves a fit alone and quantises what it learnt (post-training quantisation)."""

    def __init__(self, bits: int) -> None:
        check_bits(bits)
        self.bits = bits

    def __call__(self, weights: Tensor) -> Tensor:
        return weights

    def seal(self, weights: Tensor) -> Tensor:
        """The weights as they come back from storage."""
        return unpack(pack(weights, self.bits)).to(weights.device)


def _histogram(weights: Tensor, codebook: Codebook) -> Tensor:
    return torch.bincount(quantize(weights, codebook).flatten(), minlength=len(codebook.levels_K))


def divergence(current_K: Tensor, cached_K: Tensor) -> float:
    """KL(current || cached) of two histograms of counts, in nats. Half a count is added to each level, so that one
    which was empty does not make it infinite."""
    p_K = (current_K.double() + 0.5) / (current_K.double() + 0.5).sum()
    q_K = (cached_K.double() + 0.5) / (cached_K.double() + 0.5).sum()
    return float((p_K * (p_K / q_K).log()).sum())


def payload_bytes(scalars: int, bits: int) -> int:
    """Bytes of the indices and of the half-precision codebook, header apart."""
    return (scalars * bits + 7) // 8 + (2 << bits)


def pack(weights: Tensor, bits: int, codebook: Codebook | None = None) -> bytes:
    """Header, codebook in half precision with mean and deviation folded in, b-bit indices, CRC-32 before them all.

    Without a codebook the best one is fitted. Packing what was unpacked gives the same bytes. Raises `ValueError` for
    weights that are empty or not finite.
    """
    codebook = codebook or fit_codebook(weights, bits)
    fixed = weights.detach().float().cpu()
    halves_K = codebook.folded_K.clamp(-_HALF_MAX, _HALF_MAX).half().double().unique() + 0.0  # no negative zero
    # levels without a scalar are dropped, for they would not survive another packing
    used_K, indices = quantize(fixed, Codebook(halves_K)).unique(return_inverse=True)
    stored_K = np.pad(halves_K[used_K].numpy(), (0, 2**bits - len(used_K)), mode="edge").astype("<f2")
    head = _HEAD.pack(_MAGIC, _VERSION, bits, fixed.ndim) + struct.pack(f"<{fixed.ndim}I", *fixed.shape)
    body = head + stored_K.tobytes() + _pack_indices(indices.flatten(), bits)
    return _CRC.pack(zlib.crc32(body)) + body


def unpack(data: bytes) -> Tensor:
    """Float32 weights of the packed shape. Raises `StateError` for anything that `pack` did not write."""
    bits, shape, payload = _checked(data)
    table, packed = payload[: 2 * 2**bits], payload[2 * 2**bits :]
    levels_K = torch.from_numpy(np.frombuffer(table, dtype="<f2").astype(np.float32))
    if not bool(levels_K.isfinite().all()):
        raise StateError("packed prompt holds levels that are not finite")
    count = int(np.prod(shape, dtype=np.int64))
    return levels_K[_unpack_indices(packed, bits, count)].reshape(shape)


def _checked(data: bytes) -> tuple[int, tuple[int, ...], bytes]:
    """Bits, shape and payload."""
    if len(data) < _CRC.size + _HEAD.size:
        raise StateError(f"packed prompt is truncated: {len(data)} bytes")
    body = data[_CRC.size :]
    if zlib.crc32(body) != _CRC.unpack_from(data)[0]:
        raise StateError("packed prompt is damaged: its checksum differs")
    magic, version, bits, dimensions = _HEAD.unpack_from(body)
    if (magic, version) != (_MAGIC, _VERSION):
        raise StateError(f"these bytes are no packed prompt of version {_VERSION}")
    start = _HEAD.size + 4 * dimensions
    if not 1 <= bits <= 8 or dimensions > _MAX_DIMENSIONS or len(body) < start:
        raise StateError(f"packed prompt claims {bits} bits and {dimensions} dimensions")
    shape = struct.unpack_from(f"<{dimensions}I", body, _HEAD.size)
    scalars = 1
    for size in shape:
        scalars *= size
    if scalars == 0 or len(body) - start != payload_bytes(scalars, bits):
        raise StateError(f"packed prompt of shape {shape} has {len(body) - start} bytes of payload")
    return bits, shape, body[start:]


def _pack_indices(indices_N: Tensor, bits: int) -> bytes:
    planes = (indices_N.numpy()[:, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8).ravel(), bitorder="little").tobytes()


def _unpack_indices(packed: bytes, bits: int, count: int) -> Tensor:
    flat = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=count * bits, bitorder="little")
    return torch.from_numpy((flat.reshape(count, bits).astype(np.int64) << np.arange(bits)).sum(axis=1))
