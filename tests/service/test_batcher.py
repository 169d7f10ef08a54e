"""The batcher's promises, each as one test, with plain values instead of images."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from adapters.errors import AdaptationCancelled
from service.compute.batch_costs import BatchCosts
from service.compute.batcher import Batcher
from service.compute.fair_shares import FairOrder, has_place, share_ahead
from service.compute.work_queue import Asker
from service.errors import ComputeError, DeviceDead, InternalError, Overloaded, ShuttingDown
from tests.service.fakes import soon

Ints = Batcher[str, int, int]
T = TypeVar("T")


class Device:
    """Negates numbers, one batch at a time, each only after `release` when `gated`."""

    def __init__(self, *, gated: bool = False) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.gated = gated

    def run(self, key: str, payloads: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append((key, list(payloads)))
        self.entered.release()
        if self.gated:
            assert self.gate.acquire(timeout=5)
        if key == "poison" and 13 in payloads:
            raise RuntimeError("13 cannot be negated")
        if key == "short":
            return []
        if key == "death":
            raise SystemExit
        return [-payload for payload in payloads]

    async def busy(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=5)


@asynccontextmanager
async def batcher(device: Device, *, max_waiting: int = 100, max_batch: int = 8) -> AsyncIterator[Ints]:
    made: Ints = Batcher(device.run, max_batch=lambda _: max_batch, max_waiting=max_waiting)
    made.start()
    try:
        yield made
    finally:
        device.gate.release(1000)
        await made.stop()


def start(call: Awaitable[T]) -> asyncio.Future[T]:
    return asyncio.ensure_future(call)


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


async def test_clients_take_turns_however_much_each_has_sent() -> None:
    device = Device(gated=True)
    async with batcher(device, max_batch=4) as made:
        calls = [start(made.submit("plain", [0]))]
        await device.busy()
        calls.append(start(made.submit("plain", list(range(1, 13)), Asker("noisy"))))
        await soon(lambda: made.waiting == 12)
        calls.append(start(made.submit("plain", [100, 101], Asker("quiet"))))
        await soon(lambda: made.waiting == 14)
        device.gate.release(10)
        await asyncio.gather(*calls)
    assert {100, 101} <= set(device.batches[1][1])


async def test_a_client_that_waits_for_another_kind_gets_its_turn() -> None:
    device = Device(gated=True)
    async with batcher(device, max_batch=4) as made:
        calls = [start(made.submit("plain", [0]))]
        await device.busy()
        calls.append(start(made.submit("a", list(range(1, 13)), Asker("noisy"))))
        await soon(lambda: made.waiting == 12)
        calls.append(start(made.submit("b", [100], Asker("quiet"))))
        await soon(lambda: made.waiting == 13)
        device.gate.release(10)
        await asyncio.gather(*calls)
    assert "b" in [key for key, _ in device.batches[1:3]]


async def test_one_client_leaves_places_for_another() -> None:
    device = Device(gated=True)
    async with batcher(device, max_waiting=16) as made:
        first = start(made.submit("plain", [0]))
        await device.busy()
        noisy = start(made.submit("plain", list(range(16)), Asker("noisy")))
        await soon(lambda: made.waiting == 16)
        with pytest.raises(Overloaded):
            made.admit(1, Asker("noisy"))
        quiet = start(made.submit("plain", [7], Asker("quiet")))
        await soon(lambda: made.waiting == 17)
        device.gate.release(10)
        await asyncio.gather(first, noisy, quiet)


async def test_what_could_not_be_done_in_time_is_refused_at_once() -> None:
    device = Device(gated=True)
    async with batcher(device, max_batch=4) as made:
        made._costs.note("plain", 4, 10.0)
        calls = [start(made.submit("plain", [0]))]
        await device.busy()
        calls.append(start(made.submit("plain", [1, 2, 3, 4])))
        await soon(lambda: made.waiting == 4)
        with pytest.raises(Overloaded) as caught:
            made.admit(4, Asker(until=time.perf_counter() + 5), "plain")
        assert caught.value.reason == "deadline"
        assert 5 < int(caught.value.headers["Retry-After"]) <= 20
        made.admit(4, Asker(until=time.perf_counter() + 40), "plain")
        device.gate.release(10)
        await asyncio.gather(*calls)


async def test_with_nothing_waiting_a_pessimistic_estimate_refuses_nobody() -> None:
    async with batcher(Device()) as made:
        made._costs.note("plain", 1, 100.0)
        assert await made.submit("plain", [1], Asker(until=time.perf_counter() + 5)) == [-1]


def test_costs_of_batches_follow_a_line_through_those_that_ran() -> None:
    costs: BatchCosts[str] = BatchCosts()
    assert costs.batch("plain", 8) == 0
    for size in (1, 4, 16, 1, 4, 16):
        costs.note("plain", size, 0.010 + 0.002 * size)
    assert costs.batch("plain", 8) == pytest.approx(0.026, rel=1e-3)
    assert costs.drain("plain", 37, 16) == pytest.approx(2 * 0.042 + 0.020, rel=1e-3)


def test_costs_of_one_size_only_are_taken_in_proportion() -> None:
    costs: BatchCosts[str] = BatchCosts()
    for _ in range(3):
        costs.note("plain", 2, 0.010)
    assert costs.batch("plain", 4) == pytest.approx(0.020)


def test_a_slow_first_batch_is_soon_forgotten_and_no_cost_is_negative() -> None:
    costs: BatchCosts[str] = BatchCosts()
    costs.note("plain", 1, 9.0)
    for _ in range(20):
        costs.note("plain", 8, 0.1)
    assert 0 <= costs.batch("plain", 8) < 0.2
    assert costs.batch("plain", 1) >= 0


def test_a_newcomer_goes_before_the_rest_of_a_long_line() -> None:
    order = FairOrder()
    noisy = [order.tag("noisy", 1) for _ in range(5)]
    order.serve(noisy[1])
    assert noisy[1] <= order.tag("quiet", 1) < noisy[2]
    assert share_ahead({"noisy": 5}, "quiet", 1) == pytest.approx(1 / 5)
    assert share_ahead({"noisy": 5}, "noisy", 1) == 1


@pytest.mark.parametrize("most", [1, 3, 64, 1024])
def test_one_client_alone_gets_every_place(most: int) -> None:
    assert has_place(most, held=0, total=0, most=most)
    assert not has_place(1, held=most, total=most, most=most)
