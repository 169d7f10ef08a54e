"""`selftpt bench`: what it counts, in both ways of asking, and what it says."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator

import httpx
import pytest
from click.testing import CliRunner

from adapters.clip import Backbone
from service.cli import cli
from service.commands.load import Job, Tally, quantile, run_load
from tests.service.listening import listening

BODY = [("image/jpeg", b"x")]


def job(seconds: float = 0.2, **changes: object) -> Job:
    return Job("http://service/v1/classify", {"label_set": "x"}, {}, BODY, 4, seconds, **{"warm_up": 0.0, **changes})  # type: ignore[arg-type]


async def answer(request: httpx.Request) -> httpx.Response:
    await asyncio.sleep(0.01)
    return httpx.Response(200, headers={"Server-Timing": "decode;dur=1.5, total;dur=3"})


def test_quantiles_are_values_that_were_seen() -> None:
    values = [float(one) for one in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert math.isnan(quantile([], 0.5))


async def test_closed_connections_wait_for_their_answers() -> None:
    tally = Tally()
    await run_load(job(), tally, transport=httpx.MockTransport(answer))
    assert 0 < len(tally.latencies) <= 4 * 21
    assert min(tally.latencies) >= 0.009
    assert set(tally.stages["decode"]) == {1.5}


async def test_an_open_run_counts_from_when_a_request_was_due() -> None:
    slow_start = iter([0.3])

    async def stalled(request: httpx.Request) -> httpx.Response:
        time_to_block = next(slow_start, 0.0)
        if time_to_block:  # the whole loop stands still, as an overloaded machine does
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            end = asyncio.get_running_loop().time() + time_to_block
            while asyncio.get_running_loop().time() < end:
                pass
        return httpx.Response(200)

    tally = Tally()
    await run_load(job(0.4, rate=100.0), tally, transport=httpx.MockTransport(stalled))
    assert len(tally.latencies) > 10
    assert sum(latency > 0.1 for latency in tally.latencies) > 5


async def test_refusals_and_broken_connections_are_counted_apart() -> None:
    answers = iter([httpx.Response(429), httpx.ReadError("lost"), httpx.Response(200)])

    def scripted(request: httpx.Request) -> httpx.Response:
        found = next(answers, httpx.Response(200))
        if isinstance(found, Exception):
            raise found
        return found

    tally = Tally()
    await run_load(job(0.05), tally, transport=httpx.MockTransport(scripted))
    assert tally.failures == {"HTTP 429": 1, "ReadError": 1}


async def test_what_happens_while_warming_up_does_not_count() -> None:
    tally = Tally()
    await run_load(job(0.05, warm_up=0.1), tally, transport=httpx.MockTransport(answer))
    assert len(tally.latencies) < 4 * 12
    assert tally.seconds < 0.2


@pytest.fixture(scope="module")
def address(tiny_backbone: Backbone) -> Iterator[str]:
    with listening(tiny_backbone, adapter="zero-shot") as url:
        yield url


def test_a_running_service_is_measured(address: str) -> None:
    arguments = ["bench", "--server", address, "--seconds", "0.5", "--warm-up", "0.1", "-c", "2"]
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0, shown.output
    assert "images/s" in shown.output
    found = json.loads(CliRunner().invoke(cli, [*arguments, "--rate", "20", "--json"]).stdout)
    assert found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]
    assert found["stages_ms"]["forward"] > 0
