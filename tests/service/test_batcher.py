"""The batcher's promises, each as one test, with plain values instead of images."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from adapters.errors import AdaptationCancelled
from service.errors import ComputeError, DeviceDead, InternalError, Overloaded, ShuttingDown
from tests.service.counting_device import Device, batcher, start
from tests.service.fakes import soon


async def test_a_batch_is_what_arrived_while_the_last_one_ran() -> None:
    device = Device(gated=True)
    async with batcher(device) as made:
        calls = [start(made.submit("plain", [0]))]
        await device.busy()
        calls += [start(made.submit("plain", [n])) for n in (1, 2, 3)]
        await soon(lambda: made.waiting == 3)
        device.gate.release(2)
        assert await asyncio.gather(*calls) == [[0], [-1], [-2], [-3]]
    assert device.batches == [("plain", [0]), ("plain", [1, 2, 3])]


async def test_kinds_never_mix_and_the_oldest_decides() -> None:
    device = Device(gated=True)
    async with batcher(device) as made:
        calls = [start(made.submit("a", [0]))]
        await device.busy()
        for key, number in (("b", 1), ("a", 2), ("b", 3)):
            calls.append(start(made.submit(key, [number])))
            await asyncio.sleep(0)
        await soon(lambda: made.waiting == 3)
        device.gate.release(3)
        await asyncio.gather(*calls)
    assert device.batches[1:] == [("b", [1, 3]), ("a", [2])]


async def test_a_batch_never_exceeds_its_maximum() -> None:
    device = Device()
    async with batcher(device, max_batch=8) as made:
        assert await made.submit("plain", list(range(20))) == [-n for n in range(20)]
    assert max(len(batch) for _, batch in device.batches) == 8


async def test_a_poisonous_item_fails_alone() -> None:
    async with batcher(Device()) as made:
        results = await made.submit("poison", [12, 13, 14])
    assert results[0] == -12
    assert isinstance(results[1], ComputeError)
    assert results[2] == -14


async def test_after_a_failed_batch_the_next_is_served() -> None:
    async with batcher(Device()) as made:
        await made.submit("poison", [13])
        assert await asyncio.wait_for(made.submit("plain", [1]), 5) == [-1]
        assert made.alive


async def test_a_wrong_number_of_results_is_an_error_of_that_batch() -> None:
    async with batcher(Device()) as made:
        results = await made.submit("short", [1, 2])
        assert all(isinstance(result, InternalError) for result in results)
        assert await made.submit("plain", [3]) == [-3]


async def test_a_caller_that_left_while_waiting_costs_no_work() -> None:
    device = Device(gated=True)
    async with batcher(device) as made:
        first = start(made.submit("plain", [0]))
        await device.busy()
        gone = start(made.submit("plain", [1]))
        stays = start(made.submit("plain", [2]))
        await soon(lambda: made.waiting == 2)
        gone.cancel()
        await soon(lambda: made.waiting == 1)
        device.gate.release(2)
        assert [await first, await stays] == [[0], [-2]]
    assert device.batches == [("plain", [0]), ("plain", [2])]


async def test_a_caller_that_left_in_flight_hurts_nobody() -> None:
    device = Device(gated=True)
    async with batcher(device) as made:
        first = start(made.submit("plain", [0]))
        await device.busy()
        first.cancel()
        device.gate.release(2)
        assert await asyncio.wait_for(made.submit("plain", [1]), 5) == [-1]


async def test_too_many_waiting_are_refused_at_once() -> None:
    device = Device(gated=True)
    async with batcher(device, max_waiting=3) as made:
        first = start(made.submit("plain", [0]))
        await device.busy()
        waiting = start(made.submit("plain", [1, 2]))
        await soon(lambda: made.waiting == 2)
        with pytest.raises(Overloaded) as caught:
            await made.submit("plain", [3, 4])
        assert int(caught.value.headers["Retry-After"]) >= 1
        device.gate.release(2)
        assert [await first, await waiting] == [[0], [-1, -2]]


async def test_stopping_answers_everyone_in_flight_too() -> None:
    device = Device(gated=True)
    async with batcher(device) as made:
        running = start(made.submit("plain", [0]))
        await device.busy()
        waiting = start(made.submit("plain", [1]))
        job = start(made.run(2, lambda checkpoint: 1))
        await soon(lambda: made.waiting == 1)
        await made.stop(timeout=0.1)
        for call in (running, waiting):
            (outcome,) = await asyncio.wait_for(call, 1)
            assert isinstance(outcome, ShuttingDown)
        with pytest.raises(ShuttingDown):
            await asyncio.wait_for(job, 1)


async def test_a_batch_that_finishes_during_the_stop_gives_its_results() -> None:
    device = Device(gated=True)
    async with batcher(device) as made:
        running = start(made.submit("plain", [7]))
        await device.busy()
        threading.Timer(0.05, device.gate.release).start()
        await made.stop(timeout=5)
        assert await running == [-7]


async def test_after_the_stop_callers_are_answered() -> None:
    async with batcher(Device()) as made:
        await made.stop()
        (outcome,) = await asyncio.wait_for(made.submit("plain", [1]), 1)
        assert isinstance(outcome, ShuttingDown)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_death_of_the_thread_answers_all_and_shows() -> None:
    async with batcher(Device()) as made:
        (outcome,) = await asyncio.wait_for(made.submit("death", [1]), 5)
        assert isinstance(outcome, DeviceDead)
        await soon(lambda: not made.alive)
        (later,) = await asyncio.wait_for(made.submit("plain", [1]), 1)
        assert isinstance(later, DeviceDead)


async def test_a_job_lets_images_and_lower_jobs_pass_at_its_checkpoints() -> None:
    order: list[str] = []
    device, begun, go = Device(), threading.Event(), threading.Event()

    def long_job(checkpoint: Callable[[], None]) -> None:
        begun.set()
        assert go.wait(5)
        checkpoint()
        order.append("large")

    async with batcher(device) as made:
        large = start(made.run(3, long_job))
        await asyncio.to_thread(begun.wait, 5)
        same = start(made.run(3, lambda _: order.append("later large")))
        small = start(made.run(2, lambda _: order.append("small")))
        state = start(made.run(1, lambda _: order.append("state")))
        image = start(made.submit("plain", [1]))
        await soon(lambda: made.waiting == 1 and made.jobs_waiting == 3)
        go.set()
        await asyncio.gather(large, same, small, state, image)
    assert order == ["state", "small", "large", "later large"]


async def test_a_failing_job_is_its_callers_alone() -> None:
    def fail(_: Callable[[], None]) -> None:
        raise ZeroDivisionError

    async with batcher(Device()) as made:
        with pytest.raises(ComputeError, match="ZeroDivisionError"):
            await made.run(2, fail)
        assert await made.submit("plain", [1]) == [-1]


async def test_cancelling_a_jobs_caller_ends_it_at_its_next_checkpoint() -> None:
    ended = threading.Event()
    begun = threading.Event()

    def endless(checkpoint: Callable[[], None]) -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.005)
                checkpoint()
        except AdaptationCancelled:
            ended.set()
            raise

    async with batcher(Device()) as made:
        job = start(made.run(2, endless))
        await asyncio.to_thread(begun.wait, 5)
        job.cancel()
        assert await asyncio.to_thread(ended.wait, 5)


async def test_a_job_is_begun_although_images_never_stop() -> None:
    device = Device()
    async with batcher(device) as made:
        made._patience = 0.05
        done = threading.Event()

        async def flood() -> None:
            while not done.is_set():
                await made.submit("plain", [1, 2])

        floods = [start(flood()) for _ in range(4)]
        await asyncio.wait_for(made.run(2, lambda _: done.set()), 5)
        await asyncio.gather(*floods)
