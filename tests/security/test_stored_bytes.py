"""What comes back from a store is believed only as far as it can be checked; the rest is computed again and counted."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch

from adapters.checkpoint import STATE_SCHEMA, state_from_bytes
from adapters.clip import Backbone
from adapters.errors import StateError
from service.errors import StoreError
from service.labels.records import decode_record
from tests.service.fakes import soon
from tests.service.served import Kept, photo, served
from tests.test_architecture import ROOT

CLASSES = {"classes": ["cat", "dog"], "adapter": "zero-shot", "name": "pets"}


ROWS = torch.nn.functional.normalize(torch.arange(1.0, 17.0).reshape(2, 8), dim=1)


def blob(scale: float = 10.0, **tensors: torch.Tensor) -> bytes:
    """With a header that is right, so that what stands behind it is looked at."""
    plain = {"adapter": "self-tpt", "version": "v", "logit_scale": scale, "info": {}}
    given = {"weights": ROWS, "background": ROWS[0].clone(), **tensors}
    body = safetensors.torch.save(given, metadata={"state": json.dumps(plain)})
    return struct.pack("<4sHxxIQ", b"STPT", STATE_SCHEMA, zlib.crc32(body), len(body)) + body


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": torch.ones(2, 8, dtype=torch.int64)},
        {"weights": torch.full((2, 8), float("nan"))},
        {"weights": torch.zeros(2, 8)},
        {"weights": torch.ones(8)},
        {"weights": torch.ones(1, 2, 8)},
        {"background": torch.ones(3)},
        {"scale": float("inf")},
    ],
)
def test_states_of_the_wrong_shape_or_kind_are_refused(wrong: dict[str, Any]) -> None:
    assert torch.equal(state_from_bytes(blob()).weights, ROWS)
    with pytest.raises(StateError):
        state_from_bytes(blob(**wrong))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "cut": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "foreign": lambda data: b"PK\x03\x04" + data[4:],
    "pickle": lambda data: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "other version": lambda data: data[:4] + struct.pack("<H", STATE_SCHEMA + 1) + data[6:],
    "other classes": lambda data: blob(),
}


async def test_a_damaged_state_is_computed_again_and_counted_and_never_served(tiny_backbone: Backbone) -> None:
    kept = Kept()
    async with served(tiny_backbone, kept) as first:
        await first.http.post("/v1/label-sets", json=CLASSES, headers={"Prefer": "wait=10"})
        await soon(lambda: len(kept.states.content) > 0)
    ((key, whole),) = kept.states.content.items()
    for name, damage in DAMAGE.items():
        kept.states.content[key], written = damage(whole), kept.states.puts
        async with served(tiny_backbone, kept) as again:
            answer = await again.http.post(
                "/v1/classify", params={"label_set": "pets"}, content=photo(), headers={"Content-Type": "image/png"}
            )
            assert answer.status_code == 200, name
            assert again.value("selftpt_state_lookups_total", tier="store", result="corrupt") >= 1, name
            assert again.value("selftpt_zero_shot_states_total", outcome="ready") == 1, name
        assert kept.states.puts > written, name


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b'{"schema": 2}', b"[" * 100_000, b'{"schema": 1}']
)
def test_a_record_that_cannot_be_read_is_an_error_of_the_store(data: bytes) -> None:
    with pytest.raises(StoreError):
        decode_record(data)


def test_nothing_is_unpickled_and_weights_are_loaded_as_weights_only() -> None:
    """By the letter; the architecture tests look at imports and calls."""
    for path in [*(ROOT / "adapters").rglob("*.py"), *(ROOT / "service").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "cPickle", "import dill", "import joblib", "allow_pickle=True", "marshal.load"):
            assert word not in text, path
        loads = len(re.findall(r"(?<!safetensors\.)torch\.load\(", text))
        assert loads <= text.count("weights_only=True"), path
