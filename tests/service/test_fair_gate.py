"""A few at once; who waits goes in by turns of the clients, and who leaves keeps no place."""

from __future__ import annotations

import asyncio

import pytest

from service.compute.fair_gate import FairGate
from tests.service.fakes import soon


async def test_clients_that_wait_take_turns_however_many_each_has_waiting() -> None:
    gate, entered, go = FairGate(1), list[str](), asyncio.Event()

    async def pass_through(client: str) -> None:
        async with gate.place(client):
            entered.append(client)
            await go.wait()

    waiting = [asyncio.ensure_future(pass_through(client)) for client in ("noisy",) * 6 + ("quiet",) * 2]
    await soon(lambda: len(entered) == 1)
    go.set()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert entered[:5].count("quiet") == 2
    assert len(entered) == 8


async def test_at_most_so_many_are_inside() -> None:
    gate, inside, most = FairGate(2), 0, 0

    async def pass_through() -> None:
        nonlocal inside, most
        async with gate.place("one"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(pass_through() for _ in range(20)))
    assert most == 2


async def test_who_gives_up_waiting_or_in_the_moment_of_its_turn_takes_no_place_away() -> None:
    gate = FairGate(1)
    async with gate.place("one"):
        leaving = [asyncio.ensure_future(_enter(gate)) for _ in range(2)]
        await asyncio.sleep(0)
        leaving[0].cancel()
    leaving[1].cancel()  # its turn has come, and it has not yet run
    for task in leaving:
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.wait_for(_enter(gate), 5)


async def _enter(gate: FairGate) -> None:
    async with gate.place("one"):
        pass
