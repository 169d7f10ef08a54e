"""Methods whose prompts are quantised: what serves is what the packed bytes give back."""

from __future__ import annotations

import pytest
import torch

from adapters.base import Adapter, ClassName, ImageNeeds, LabelSet, Support
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from adapters.errors import StateError, SupportError
from adapters.methods.coop import CoOp, CoOpSettings
from adapters.methods.dapt import DAPT, DAPTSettings
from adapters.methods.maple import MaPLe, MaPLeSettings
from adapters.methods.quantized import Host, Quantized, QuantizedSettings
from adapters.methods.self_tpt import SelfTPT, SelfTPTSettings
from adapters.quantization.quantizer import AfterTraining, StraightThrough, payload_bytes
from adapters.quantization.stored_prompts import packed_extras, stored_at, unpacked

LABELS = LabelSet((ClassName("cat"), ClassName("dog", aliases=("hound",)), ClassName("red fox")))
HOSTS: tuple[Host, ...] = ("coop", "maple", "self-tpt")


def support() -> Support:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (9, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Support(pixels, torch.arange(3).repeat(3))


@pytest.mark.parametrize("mode", ["qat", "ptq"])
@pytest.mark.parametrize("host", HOSTS)
def test_weights_rebuilt_from_the_stored_bytes_are_the_served_ones(
    tiny_backbone: Backbone, host: Host, mode: str
) -> None:
    adapter = Quantized(QuantizedSettings(host=host, mode=mode, bits=2, steps=3), tiny_backbone)  # type: ignore[arg-type]  # parametrised
    state = state_from_bytes(state_to_bytes(adapter.adapt(LABELS, tiny_backbone, support())))
    rebuilt = adapter.rebuild(state.extras, LABELS, tiny_backbone)
    features = torch.nn.functional.normalize(torch.randn(50, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    assert torch.allclose(rebuilt, state.weights, atol=1e-5)
    assert torch.equal((features @ rebuilt.T).argmax(1), (features @ state.weights.T).argmax(1))


def test_one_bit_is_the_default_of_coop_and_only_the_packed_context_is_kept(tiny_backbone: Backbone) -> None:
    state = Quantized(QuantizedSettings(steps=2), tiny_backbone).adapt(LABELS, tiny_backbone, support())
    assert (state.info["bits"], state.info["host"], state.info["mode"]) == (1, "coop", "qat")
    assert state.info["packed_bytes"] == payload_bytes(4 * 64, 1) + 20 == state.extras["packed"].numel()
    assert set(state.extras) == {"packed"}
    assert len(unpacked(state.extras["packed"]).unique()) == 2


def test_quantised_maple_serves_visual_prompts_of_sixteen_levels(tiny_backbone: Backbone) -> None:
    adapter = Quantized(QuantizedSettings(host="maple", steps=2), tiny_backbone)
    state = adapter.adapt(LABELS, tiny_backbone, support())
    assert adapter.needs(state) == ImageNeeds(prompts=2, layers=2, before_norm=True)
    assert state.visual_prompts is not None
    assert len(state.visual_prompts.tokens.unique()) <= 16
    assert torch.equal(unpacked(state.extras["packed_visual_prompts"]), state.visual_prompts.tokens)


def test_only_hosts_that_learn_from_images_ask_for_them(tiny_backbone: Backbone) -> None:
    for host in ("coop", "maple"):
        with pytest.raises(SupportError):
            Quantized(QuantizedSettings(host=host), tiny_backbone).adapt(LABELS, tiny_backbone)
    assert Quantized(QuantizedSettings(host="self-tpt"), tiny_backbone).adapt(LABELS, tiny_backbone).info["bits"] == 4


def test_training_through_the_quantiser_ends_lower_than_quantising_afterwards(tiny_backbone: Backbone) -> None:
    settings = CoOpSettings(steps=60, learning_rate=0.01, heldout=0, anchor=0)
    shots, losses = support(), []
    features = tiny_backbone.image.encode(shots.pixels)
    for through in (lambda: StraightThrough(1), lambda: AfterTraining(1)):
        weights = CoOp(settings, tiny_backbone, through).adapt(LABELS, tiny_backbone, shots).weights
        losses.append(float(torch.nn.functional.cross_entropy(100 * features @ weights.T, shots.labels)))
    assert losses[0] < losses[1]


def test_stored_prompts_lose_less_with_every_bit_and_nothing_with_eight(tiny_backbone: Backbone) -> None:
    hosts: list[Adapter] = [
        CoOp(CoOpSettings(steps=5), tiny_backbone),
        DAPT(DAPTSettings(steps=5), tiny_backbone),
        MaPLe(MaPLeSettings(steps=5), tiny_backbone),
        SelfTPT(SelfTPTSettings(steps=2), tiny_backbone),
    ]
    for host in hosts:
        state = host.adapt(LABELS, tiny_backbone, support())
        stored = [stored_at(state, host, LABELS, tiny_backbone, bits=bits) for bits in (1, 4, 8)]
        losses = [float((s.weights - state.weights).norm()) for s in stored]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < 0.05
        assert [s.info["bits"] for s in stored] == [1, 4, 8]


@pytest.mark.parametrize("host", HOSTS)
def test_packed_prompts_serve_other_classes_without_a_fit(tiny_backbone: Backbone, host: Host) -> None:
    adapter = Quantized(QuantizedSettings(host=host, steps=2), tiny_backbone)
    state = adapter.adapt(LABELS, tiny_backbone, support())
    more = adapter.extend(state, LabelSet((*LABELS.classes, ClassName("bus"))), tiny_backbone)
    assert more.weights.shape[0] == 4
    assert torch.allclose(more.weights[:3], state.weights, atol=1e-5)


def test_damaged_packed_prompts_are_refused(tiny_backbone: Backbone) -> None:
    adapter = Quantized(QuantizedSettings(host="self-tpt", steps=1), tiny_backbone)
    packed = adapter.adapt(LABELS, tiny_backbone).extras["packed"].clone()
    packed[30] ^= 4
    with pytest.raises(StateError):
        adapter.rebuild({"packed": packed}, LABELS, tiny_backbone)


def test_a_state_without_prompts_cannot_be_packed(tiny_backbone: Backbone) -> None:
    state = SelfTPT(SelfTPTSettings(steps=1), tiny_backbone).adapt(LABELS, tiny_backbone)
    with pytest.raises(ValueError, match="no learnt prompts"):
        packed_extras(type(state)("zero-shot", "v", state.weights, state.background, 1.0), 4)


def test_settings_decide_the_version_and_are_checked(tiny_backbone: Backbone) -> None:
    versions = {
        Quantized(QuantizedSettings(host=host, bits=bits), tiny_backbone).version for host in HOSTS for bits in (1, 2)
    }
    assert len(versions) == 6
    for wrong in ({"bits": 9}, {"threshold": float("nan")}, {"interval": 0}):
        with pytest.raises(ValueError, match="must lie"):
            QuantizedSettings(**wrong)
