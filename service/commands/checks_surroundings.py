"""Checks of `selftpt doctor` on what the service stands on: data folder, Redis, API keys, and the port."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import httpx
from redis.exceptions import RedisError

from service.commands.findings import Finding
from service.errors import StoreError
from service.security.key_file import read_keys
from service.settings import Settings
from service.stores import access_of
from service.stores.redis_client import RedisAccess, close_client, open_client

FREE_BYTES = 500 * 1024 * 1024
SLOW_SECONDS = 0.02
PATIENCE = 2.0


def check_data_dir(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError as failure:
        yield Finding(
            "fail", "data folder", f"{folder}: {failure.strerror}", "set SELFTPT_DATA_DIR to a writable folder"
        )
        return
    free = shutil.disk_usage(folder).free
    fact = f"{folder} is writable, {free / 1e9:.0f} GB free"
    if free < FREE_BYTES:
        yield Finding("warn", "data folder", fact, "free some space: label sets and class states are kept here")
    else:
        yield Finding("ok", "data folder", fact)


def check_redis(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url is None:
        yield Finding("ok", "redis", "not used (SELFTPT_REDIS_URL is not set): the embedded store is")
        return
    try:
        seconds, info = asyncio.run(asked(replace(access_of(settings), timeout=PATIENCE)))
    except (RedisError, StoreError, OSError, ValueError) as failure:
        yield Finding("fail", "redis", str(failure), "start it, correct SELFTPT_REDIS_URL, or unset it")
        return
    fact = f"{info.get('redis_version', 'a server')} answers in {1000 * seconds:.1f} ms"
    if seconds > SLOW_SECONDS:
        yield Finding("warn", "redis", fact, "every look-up that is not in memory takes this long: move it closer")
    else:
        yield Finding("ok", "redis", fact)
    yield from kept_well(info)


def kept_well(info: Mapping[str, Any]) -> Iterator[Finding]:
    """Label sets are the truth, so the server must neither evict nor forget them."""
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        advice = "set maxmemory-policy volatile-lru: class states expire, label sets do not"
        yield Finding("warn", "redis memory", f"{policy} may evict label sets", advice)
    if info.get("aof_enabled") == 0 and info.get("rdb_saves") == 0 and info.get("rdb_last_save_time", 0) == 0:
        yield Finding("warn", "redis on disk", "nothing was ever saved", "switch on appendonly, or snapshots")
    elif info.get("aof_enabled") == 0:
        advice = "what was uploaded since the last snapshot is lost with the server: switch on appendonly"
        yield Finding("warn", "redis on disk", "snapshots only", advice)


async def asked(access: RedisAccess) -> tuple[float, Mapping[str, Any]]:
    """Seconds of a look-up, and what the server says of itself."""
    client = open_client(access)
    try:
        await client.get("selftpt-doctor")
        start = perf_counter()
        await client.get("selftpt-doctor")
        seconds = perf_counter() - start
        try:
            return seconds, await client.info()
        except RedisError:  # not allowed to ask, as with many hosted servers
            return seconds, {}
    finally:
        await close_client(client)


def check_keys(settings: Settings) -> Iterator[Finding]:
    if settings.api_keys_file is None:
        yield Finding("ok", "API keys", "not asked for (SELFTPT_API_KEYS_FILE is not set)")
        return
    try:
        keys = read_keys(settings.api_keys_file)
    except OSError as failure:
        yield Finding("fail", "API keys", str(failure), "make a file of keys: selftpt keys create")
    else:
        yield Finding("ok", "API keys", f"{len(keys)} in {settings.api_keys_file}")


def check_port(settings: Settings) -> Iterator[Finding]:
    place = f"{settings.host} port {settings.port}"
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as failure:
        if ready := who_answers(settings.port):
            yield Finding("ok", "port", f"{place}: a service answers there, {ready}")
        else:
            advice = "another program has it: choose another --port"
            yield Finding("warn", "port", f"{place}: {failure.strerror}", advice)
    else:
        yield Finding("ok", "port", f"{place} is free")


def who_answers(port: int) -> str:
    """The status of a service of ours on that port of this machine, "" if there is none."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE).json()
        return str(answer["status"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""
