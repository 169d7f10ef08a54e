"""Whose turn it is, who is refused in time, and what batches are expected to cost."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from service.compute.backlog import Backlog
from service.compute.batch_bounds import ALIKE, OF_LATE, UNEVEN, UNEVEN_OF_LATE, bounds_by
from service.compute.batch_costs import BatchCosts, Bounds
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
    assert costs.worthwhile("unknown", 32, Bounds(0.05, 0.03)) == 32
    for size in (1, 8, 32, 4) * 10:
        costs.note("quick", size, 0.004 + 0.001 * size)
        costs.note("even", size, 0.0005 + 0.0095 * size)
        costs.note("slow to begin", size, 0.050 + 0.025 * size)
        costs.note("huge", size, 2.0 * size)
    found = {
        kind: costs.worthwhile(kind, 32, Bounds(0.05, 0.03)) for kind in ("quick", "even", "slow to begin", "huge")
    }
    assert found == {"quick": 32, "even": 5, "slow to begin": 32, "huge": 1}


def test_what_was_measured_of_two_sizes_holds_however_busy_the_machine_is_later() -> None:
    costs: BatchCosts[str] = BatchCosts()
    costs.measured("tower", alone=0.024, several=0.164, count=8)  # 4 ms and 20 ms an image
    for _ in range(30):
        costs.note("tower", 2, 3 * 0.044)  # batches of one size alone would not tell
    assert costs.batch("tower", 10) == pytest.approx(3 * 0.204)
    assert costs.worthwhile("tower", 32, Bounds(0.02, 0.03)) == 6


def test_a_tower_that_is_slower_in_large_batches_gets_short_ones() -> None:
    costs: BatchCosts[str] = BatchCosts()
    costs.measured("tower", alone=0.007, several=0.080, count=8)
    costs.note("tower", 2, 0.015)
    assert costs.worthwhile("tower", 32, Bounds(0.02, 0.03)) == 2


async def test_the_device_takes_short_batches_once_it_knows_what_they_cost() -> None:
    device = Device(gated=True)
    async with batcher(device, max_batch=8, bounds=Bounds(0.05, 0.03)) as made:
        made._costs.note("plain", 8, 0.2)
        calls = [start(made.submit("plain", [0]))]
        await device.busy()
        calls.append(start(made.submit("plain", list(range(1, 9)))))
        await soon(lambda: made.waiting == 8)
        made._costs.note("plain", 8, 0.2)
        device.gate.release(20)
        await asyncio.gather(*calls)
    assert max(len(payloads) for _, payloads in device.batches) < 8


def test_batches_are_short_while_one_client_crowds_out_another_but_have_room_for_many_clients() -> None:
    now = 100.0
    backlog = Backlog(clock=lambda: now)
    with backlog.claim(12, "noisy"), backlog.claim(12, "as noisy"):
        assert bounds_by(backlog) == ALIKE
    with backlog.claim(12, "noisy"), backlog.claim(1, "quiet"):
        assert bounds_by(backlog) == UNEVEN
    assert bounds_by(backlog).long == UNEVEN_OF_LATE.long
    with ExitStack() as stack:
        for client in range(8):
            stack.enter_context(backlog.claim(12 if client else 1, str(client)))
        assert bounds_by(backlog).least == 4
    now += OF_LATE + 1
    assert bounds_by(backlog) == ALIKE


def test_a_batch_holds_what_its_bounds_allow_in_any_case() -> None:
    costs: BatchCosts[str] = BatchCosts()
    costs.note("plain", 8, 0.8)
    assert costs.worthwhile("plain", 8, Bounds(0.01, 0.5)) == 1
    assert costs.worthwhile("plain", 8, Bounds(0.01, 0.5, least=4)) == 4
    assert costs.worthwhile("plain", 2, Bounds(0.01, 0.5, least=4)) == 2
