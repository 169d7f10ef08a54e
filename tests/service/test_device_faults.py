"""What the device can do to the service: its thread dies, its memory runs out, its numbers are no numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adapters.base import ClassState
from adapters.checkpoint import state_from_bytes, state_to_bytes
from adapters.clip import Backbone
from adapters.errors import AdaptationDiverged, StateError
from service.compute.batcher import Batcher
from service.compute.engine import LocalEngine, finite
from service.compute.out_of_memory import BatchSizes, is_out_of_memory
from service.errors import DeviceDead, DeviceFull
from tests.service.fakes import soon
from tests.service.served import photo, served

PNG = {"content-type": "image/png"}
LABELS = "/v1/classify?labels=a,b"
Ints = Batcher[str, int, int]


class Device:
    """Negates numbers; dies of 0, and has memory for `room` numbers at once."""

    def __init__(self, room: int = 100, failure: type[Exception] = MemoryError, text: str = "") -> None:
        self.room = room
        self.failure, self.text = failure, text
        self.sizes: list[int] = []

    def run(self, key: str, payloads: Sequence[int]) -> Sequence[int | Exception]:
        self.sizes.append(len(payloads))
        if 0 in payloads:
            raise SystemExit
        if len(payloads) > self.room:
            raise self.failure(self.text)
        return [-payload for payload in payloads]


@asynccontextmanager
async def batcher(device: Device, pauses: Sequence[float] = (0.02, 0.04)) -> AsyncIterator[Ints]:
    made: Ints = Batcher(device.run, max_batch=lambda _: 8, max_waiting=100, pauses=pauses)
    made.start()
    try:
        yield made
    finally:
        await made.stop()


async def test_a_device_thread_that_died_is_started_again() -> None:
    async with batcher(Device()) as made:
        (outcome,) = await asyncio.wait_for(made.submit("one", [0]), 5)
        assert isinstance(outcome, DeviceDead)
        assert not made.alive
        assert made.busy_since is None
        await soon(lambda: made.alive)
        assert await made.submit("one", [1, 2]) == [-1, -2]


async def test_everyone_who_waits_when_the_thread_dies_is_answered_and_so_is_who_comes_until_it_is_back() -> None:
    async with batcher(Device(), pauses=[0.2]) as made:
        calls = [made.submit("one", [0])] + [made.submit(str(kind), [1]) for kind in range(20)]
        calls.append(made.run(1, lambda checkpoint: "done"))
        found = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        said = [one[0] if isinstance(one, list) else one for one in found]
        assert all(isinstance(one, DeviceDead) for one in said)
        while not made.alive:
            (meanwhile,) = await asyncio.wait_for(made.submit("one", [1]), 1)
            assert meanwhile == -1 or isinstance(meanwhile, DeviceDead)
            await asyncio.sleep(0.01)


async def test_a_thread_that_keeps_dying_stays_dead_and_everyone_is_told() -> None:
    async with batcher(Device(), pauses=[0.01, 0.01]) as made:
        for _ in range(2):
            await made.submit("one", [0])
            await soon(lambda: made.alive)
        assert not made.given_up
        await made.submit("one", [0])
        await soon(lambda: made.given_up)
        (outcome,) = await asyncio.wait_for(made.submit("one", [1]), 1)
        assert isinstance(outcome, DeviceDead)


async def test_a_stop_between_death_and_new_start_leaves_no_thread() -> None:
    async with batcher(Device(), pauses=[0.05]) as made:
        await made.submit("one", [0])
        await made.stop()
        await asyncio.sleep(0.1)
        assert not made.thread_alive


async def test_readiness_turns_red_while_the_device_is_dead_and_the_service_heals(tiny_backbone: Backbone) -> None:
    image = DyingTower(tiny_backbone)
    async with served(replace(tiny_backbone, image=image)) as site:  # type: ignore[arg-type]  # has what is asked of it
        assert (await site.http.get("/readyz")).status_code == 200
        image.dying = True
        answer = await site.http.post(LABELS, content=photo(), headers=PNG)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/device-dead")
        assert "Retry-After" in answer.headers
        site.app.state.readiness.fresh = 0.0
        assert (await site.http.get("/readyz")).status_code == 503
        assert site.value("selftpt_device_alive") == 0
        image.dying = False
        await soon(lambda: site.value("selftpt_device_alive") == 1)
        assert (await site.http.get("/readyz")).status_code == 200
        assert (await site.http.post(LABELS, content=photo(colour="blue"), headers=PNG)).status_code == 200
        assert site.value("selftpt_device_restarts_total") == 1


async def test_liveness_turns_red_when_only_a_new_process_helps_and_not_before(tiny_backbone: Backbone) -> None:
    image = DyingTower(tiny_backbone)
    async with served(replace(tiny_backbone, image=image)) as site:  # type: ignore[arg-type]  # has what is asked of it
        image.dying = True
        engine = site.runtime.core.engine
        assert isinstance(engine, LocalEngine)
        engine.batcher._thread._pauses = (0.01, 0.01)  # real ones take a quarter of a minute
        while not engine.batcher.given_up:
            assert (await site.http.get("/livez")).status_code == 200
            await site.http.post(LABELS, content=photo(), headers=PNG)
            await asyncio.sleep(0.005)
        answer = await site.http.get("/livez")
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/device-dead")


class DyingTower:
    def __init__(self, backbone: Backbone) -> None:
        self._tower = backbone.image
        self.dying = False
        self.room = 1000

    def __getattr__(self, name: str) -> object:
        return getattr(self._tower, name)

    def encode(self, pixels_B3SS: Tensor) -> Tensor:
        if self.dying:
            raise SystemExit
        if len(pixels_B3SS) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._tower.encode(pixels_B3SS)


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_running_out_of_memory_is_recognised_however_it_is_said(failure: Exception) -> None:
    assert is_out_of_memory(failure)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


async def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits_and_the_next_ones_stay_small() -> None:
    device = Device(room=3)
    async with batcher(device) as made:
        assert await made.submit("one", list(range(1, 9))) == [-one for one in range(1, 9)]
        assert device.sizes == [8, 4, 2, 2, 4, 2, 2]
        device.sizes.clear()
        await made.submit("one", [1, 2, 3, 4])
        assert device.sizes == [2, 2]


async def test_what_does_not_fit_even_alone_is_shed_and_the_thread_goes_on() -> None:
    device = Device(room=0, failure=RuntimeError, text="not enough memory")
    async with batcher(device) as made:
        outcomes = await made.submit("one", [1, 2])
        assert all(isinstance(outcome, DeviceFull) and outcome.status == 503 for outcome in outcomes)
        device.room = 8
        assert await made.submit("one", [1]) == [-1]


def test_batches_grow_again_after_a_while() -> None:
    now = 0.0
    sizes: BatchSizes[str] = BatchSizes(lambda _: 64, clock=lambda: now)
    sizes.did_not_fit("one", 32)
    assert (sizes("one"), sizes("other")) == (16, 64)
    now = 61.0
    assert sizes("one") == 64


async def test_too_little_memory_for_many_images_is_no_error_of_the_request(tiny_backbone: Backbone) -> None:
    image = DyingTower(tiny_backbone)
    image.room = 2
    async with served(replace(tiny_backbone, image=image)) as site:  # type: ignore[arg-type]  # has what is asked of it
        files = [("images", (f"{one}.png", photo(colour=one), "image/png")) for one in ("red", "green", "blue", "grey")]
        answer = await site.http.post(LABELS, files=files)
        assert answer.status_code == 200
        assert all("predictions" in one for one in answer.json()["results"])
        image.room = 0
        answer = await site.http.post(LABELS, content=photo(colour="pink"), headers=PNG)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/device-full")


async def test_an_adaptation_to_no_numbers_fails_alone_and_is_neither_served_nor_stored(
    tiny_backbone: Backbone,
) -> None:
    async with served(tiny_backbone) as site:
        site.slow.spoiled = True
        site.slow.go.set()
        made = await site.http.post("/v1/label-sets", json={"classes": ["a", "b"]}, headers={"Prefer": "wait=5"})
        shown = (await site.http.get(f"/v1/label-sets/{made.json()['id']}")).json()
        assert shown["status"] == "failed"
        assert "finite" in shown["error"]
        answer = (await site.http.post(f"/v1/classify?label_set={shown['id']}", content=photo(), headers=PNG)).json()
        assert answer["results"][0]["predictions"]
        assert not answer["adapted"]
        stored = [state_from_bytes(blob) for blob in site.kept.states.content.values()]
        assert [state.adapter for state in stored] == ["zero-shot"]


def test_states_with_numbers_that_are_none_are_refused_made_or_stored(tiny_backbone: Backbone) -> None:
    rows = torch.eye(2, 8)
    for bad in (
        ClassState("a", "1", rows, rows[0], 10.0, extras={"bias": torch.tensor([1.0, float("inf")])}),
        ClassState("a", "1", rows, rows[0] * float("nan"), 10.0),
    ):
        with pytest.raises(AdaptationDiverged):
            finite(bad)
        with pytest.raises(StateError):
            state_from_bytes(state_to_bytes(bad))
