"""Recorded batches, with a recorder that runs on any device: buckets, padding, and towers that cannot be recorded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adapters.clip import Backbone
from adapters.engines.cuda_graphs import GraphEngine, Recording, bucket_sizes, graph_engine

CPU = torch.device("cpu")


class EagerRecorder:
    """Runs the work again into the same output, as a recorded graph does."""

    def __init__(self) -> None:
        self.replays: list[int] = []

    def __call__(self, work: Callable[[], Tensor]) -> Recording:
        output = work()

        def replay() -> None:
            self.replays.append(len(output))
            output.copy_(work())

        return Recording(replay, output)


def pictures(count: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draw)


def engine_on(backbone: Backbone, recorder: EagerRecorder, most: int = 8) -> GraphEngine:
    made = graph_engine(backbone.image.encode_reference, most=most, side=32, device=CPU, recorder=recorder)
    assert made is not None
    return made


@pytest.mark.parametrize(("count", "ran"), [(1, [1]), (3, [4]), (8, [8]), (13, [8, 8]), (17, [8, 8, 1])])
def test_batches_run_in_the_next_larger_recorded_size(count: int, ran: list[int], tiny_backbone: Backbone) -> None:
    recorder = EagerRecorder()
    features = engine_on(tiny_backbone, recorder).features(pictures(count))
    assert recorder.replays == ran
    assert torch.allclose(features, tiny_backbone.image.encode(pictures(count)), atol=1e-5)


def test_a_later_batch_does_not_change_earlier_features(tiny_backbone: Backbone) -> None:
    engine = engine_on(tiny_backbone, EagerRecorder())
    first = engine.features(pictures(2, seed=1))
    kept = first.clone()
    engine.features(pictures(2, seed=2))
    assert torch.equal(first, kept)


def test_the_tower_runs_by_recorded_batches(tiny_backbone: Backbone) -> None:
    recorder = EagerRecorder()
    tower = tiny_backbone.image.run_by(engine_on(tiny_backbone, recorder), "graphs")
    assert torch.allclose(tower.encode(pictures(5)), tiny_backbone.image.encode(pictures(5)), atol=1e-5)
    assert recorder.replays == [8]


def test_a_tower_that_cannot_be_recorded_stays_as_it_is() -> None:
    def refuses(pixels: Tensor) -> Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")

    assert graph_engine(refuses, most=4, side=32, device=CPU, recorder=EagerRecorder()) is None


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (8, [1, 2, 4, 8]), (24, [1, 2, 4, 8, 16, 24])])
def test_no_batch_is_padded_to_more_than_twice_its_size(most: int, sizes: list[int]) -> None:
    assert bucket_sizes(most) == sizes
