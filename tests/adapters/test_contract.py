"""What every adapter promises, whatever its method."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from adapters import METHOD_NAMES, create_adapter
from adapters.base import Adapter, ClassName, ClassState, InfoValue, LabelSet, cosine_logits
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from adapters.errors import AdaptationCancelled, LabelSetError, OptionError

LABELS = LabelSet.of("cat", "dog", "red fox", "teapot", "bus")
FAST: Mapping[str, Mapping[str, InfoValue]] = {"self-tpt": {"steps": 2, "chunk": 4, "class_batch": 4}}


@pytest.fixture(params=METHOD_NAMES)
def adapter(request: pytest.FixtureRequest, tiny_backbone: Backbone) -> Adapter:
    return create_adapter(request.param, tiny_backbone, FAST.get(request.param))


def test_one_finite_unit_row_per_class(adapter: Adapter, tiny_backbone: Backbone) -> None:
    state = adapter.adapt(LABELS, tiny_backbone)
    assert state.weights.shape == (5, tiny_backbone.embed_dim)
    assert torch.allclose(state.weights.norm(dim=-1), torch.ones(5), atol=1e-5)
    assert (state.adapter, state.version) == (adapter.name, adapter.version)


def test_adapting_twice_gives_the_same_bytes(adapter: Adapter, tiny_backbone: Backbone) -> None:
    first, second = adapter.adapt(LABELS, tiny_backbone), adapter.adapt(LABELS, tiny_backbone)
    assert first.weights.numpy().tobytes() == second.weights.numpy().tobytes()


def test_state_survives_bytes(adapter: Adapter, tiny_backbone: Backbone) -> None:
    state = adapter.adapt(LABELS, tiny_backbone)
    back = state_from_bytes(state_to_bytes(state))
    assert torch.equal(back.weights, state.weights)
    assert (back.info, back.logit_scale, back.version) == (state.info, state.logit_scale, state.version)
    assert sorted(back.extras) == sorted(state.extras)


def test_a_row_of_logits_depends_on_its_own_image_only(adapter: Adapter, tiny_backbone: Backbone) -> None:
    state = adapter.adapt(LABELS, tiny_backbone)
    features = torch.nn.functional.normalize(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert torch.allclose(cosine_logits(features, state)[1], cosine_logits(features[1:2], state)[0], atol=1e-5)


def test_one_class_works_and_gives_one_row(adapter: Adapter, tiny_backbone: Backbone) -> None:
    assert adapter.adapt(LabelSet.of("cat"), tiny_backbone).weights.shape[0] == 1


def test_aliases_and_descriptions_move_their_own_class_only(adapter: Adapter, tiny_backbone: Backbone) -> None:
    plain = adapter.adapt(LabelSet.of("cat", "dog"), tiny_backbone)
    told = LabelSet((ClassName("cat"), ClassName("dog", descriptions=("an animal that barks",))))
    weights = adapter.adapt(told, tiny_backbone).weights
    assert torch.equal(weights[0], plain.weights[0])
    assert not torch.allclose(weights[1], plain.weights[1], atol=1e-3)


def test_progress_rises_and_its_exception_ends_the_adaptation(adapter: Adapter, tiny_backbone: Backbone) -> None:
    told: list[float] = []
    adapter.adapt(LABELS, tiny_backbone, progress=told.append)
    assert told == sorted(told)
    assert 0 < told[-1] <= 1

    def cancel(_: float) -> None:
        raise AdaptationCancelled

    with pytest.raises(AdaptationCancelled):
        adapter.adapt(LABELS, tiny_backbone, progress=cancel)


def test_a_name_that_is_too_long_is_refused_before_any_text_pass(adapter: Adapter, tiny_backbone: Backbone) -> None:
    before = tiny_backbone.text.prompts_encoded
    with pytest.raises(LabelSetError):
        adapter.adapt(LabelSet.of("cat", "very " * 30), tiny_backbone)
    assert tiny_backbone.text.prompts_encoded == before


def test_unknown_methods_and_options_are_refused_by_name(tiny_backbone: Backbone) -> None:
    for name, options, field in [
        ("magic", {}, "adapter"),
        ("self-tpt", {"stepz": 1}, "options.stepz"),
        ("self-tpt", {"steps": "many"}, "options.steps"),
        ("self-tpt", {"steps": 10**9}, "options"),
        ("self-tpt", {"learning_rate": float("nan")}, "options"),
        ("zero-shot", {"ensemble": 1}, "options.ensemble"),
    ]:
        with pytest.raises(OptionError) as caught:
            create_adapter(name, tiny_backbone, options)  # type: ignore[arg-type]  # mixed literals
        assert caught.value.field == field


def test_settings_decide_the_version(tiny_backbone: Backbone) -> None:
    versions = {create_adapter("self-tpt", tiny_backbone, {"steps": n}).version for n in (1, 2, 2)}
    assert len(versions) == 2


def damaged(data: bytes) -> list[bytes]:
    return [b"", data[:10], data[:-1], data + b"x", b"PICK" + data[4:], data[:40] + bytes([data[40] ^ 1]) + data[41:]]


def test_damaged_state_bytes_are_refused(tiny_backbone: Backbone) -> None:
    from adapters.errors import StateError

    state: ClassState = create_adapter("zero-shot", tiny_backbone).adapt(LABELS, tiny_backbone)
    for data in damaged(state_to_bytes(state)):
        with pytest.raises(StateError):
            state_from_bytes(data)


def test_a_state_whose_tensors_share_memory_is_stored_all_the_same() -> None:
    weights = torch.nn.functional.normalize(torch.ones(2, 4), dim=-1)
    state = ClassState("zero-shot", "v", weights, weights[0], logit_scale=1.0)
    assert torch.equal(state_from_bytes(state_to_bytes(state)).background, weights[0])
