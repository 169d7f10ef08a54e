"""Whose turn it is, who is refused in time, and what batches are expected to cost."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.compute.batch_costs import BatchCosts
from service.compute.fair_shares import FairOrder, has_place, share_ahead
from service.compute.work_queue import Asker
from service.errors import Overloaded
from tests.service.counting_device import Device, batcher, start
from tests.service.fakes import soon


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


def test_a_batch_that_would_take_long_is_cut_but_not_where_its_fixed_part_would_be_wasted() -> None:
    costs: BatchCosts[str] = BatchCosts()
    assert costs.worthwhile("unknown", 32, long=0.05) == 32
    for size in (1, 8, 32, 4) * 10:
        costs.note("quick", size, 0.004 + 0.001 * size)
        costs.note("even", size, 0.0005 + 0.0095 * size)
        costs.note("slow to begin", size, 0.050 + 0.025 * size)
        costs.note("huge", size, 2.0 * size)
    found = {kind: costs.worthwhile(kind, 32, long=0.05) for kind in ("quick", "even", "slow to begin", "huge")}
    assert found == {"quick": 32, "even": 5, "slow to begin": 32, "huge": 1}


def test_what_was_measured_of_two_sizes_holds_however_busy_the_machine_is_later() -> None:
    costs: BatchCosts[str] = BatchCosts()
    costs.measured("tower", alone=0.024, several=0.164, count=8)  # 4 ms and 20 ms an image
    for _ in range(30):
        costs.note("tower", 2, 3 * 0.044)  # batches of one size alone would not tell
    assert costs.batch("tower", 10) == pytest.approx(3 * 0.204)
    assert costs.worthwhile("tower", 32, long=0.02) == 6


def test_a_tower_that_is_slower_in_large_batches_gets_short_ones() -> None:
    costs: BatchCosts[str] = BatchCosts()
    costs.measured("tower", alone=0.007, several=0.080, count=8)
    costs.note("tower", 2, 0.015)
    assert costs.worthwhile("tower", 32, long=0.02) == 2


async def test_the_device_takes_short_batches_once_it_knows_what_they_cost() -> None:
    device = Device(gated=True)
    async with batcher(device, max_batch=8) as made:
        made._long = 0.05
        made._costs.note("plain", 8, 0.2)
        calls = [start(made.submit("plain", [0]))]
        await device.busy()
        calls.append(start(made.submit("plain", list(range(1, 9)))))
        await soon(lambda: made.waiting == 8)
        made._costs.note("plain", 8, 0.2)
        device.gate.release(20)
        await asyncio.gather(*calls)
    assert max(len(payloads) for _, payloads in device.batches) < 8
