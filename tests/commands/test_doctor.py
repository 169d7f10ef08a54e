"""The checks of `selftpt doctor`, each on something that is right and something that is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.clip import Backbone
from service.commands.checks_installation import check_extras, installed
from service.commands.checks_model import check_engine
from service.commands.checks_surroundings import check_keys, check_port, check_redis, kept_well
from service.commands.doctor import check_variables
from service.commands.findings import Finding
from service.settings import Settings
from tests.service.listening import listening
from tests.valkey import real_redis


def levels(found: Iterator[Finding]) -> dict[str, str]:
    return {one.subject: one.level for one in found}


def test_a_redis_that_loses_label_sets_is_warned_of() -> None:
    with real_redis("--maxmemory-policy", "allkeys-lru") as server:
        found = levels(check_redis(Settings(redis_url=server.url)))
    assert found.pop("redis") in {"ok", "warn"}
    assert found == {"redis memory": "warn", "redis on disk": "warn"}
    assert levels(check_redis(Settings(redis_url="redis://127.0.0.1:1"))) == {"redis": "fail"}


def test_a_redis_that_keeps_label_sets_is_fine() -> None:
    assert list(kept_well({"maxmemory_policy": "noeviction", "aof_enabled": 1})) == []
    assert list(kept_well({})) == []


def test_a_taken_port_says_by_whom(tiny_backbone: Backbone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert levels(check_port(Settings(port=other.getsockname()[1]))) == {"port": "warn"}
    with listening(tiny_backbone) as address:
        found = list(check_port(Settings(port=int(address.rpartition(":")[2]))))
    assert [one.level for one in found] == ["ok"]
    assert "a service answers there, ready" in found[0].fact


def test_the_engines_that_can_run_are_told() -> None:
    found = list(check_engine(Settings()))
    assert [one.level for one in found] == ["ok"]
    assert "torch fp32" in found[0].fact


def test_a_file_of_keys_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("{}", encoding="utf-8")
    assert levels(check_keys(Settings(api_keys_file=file))) == {"API keys": "fail"}
    file.write_text('{"keys": []}', encoding="utf-8")
    assert levels(check_keys(Settings(api_keys_file=file))) == {"API keys": "ok"}


def test_extras_are_told_by_their_modules() -> None:
    assert [one.level for one in check_extras(Settings())] == ["ok"]
    assert installed("json")
    assert not installed("nothing.of.this.name")


def test_a_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTPT_BACKBON", "x")
    assert [one.fact for one in check_variables(Settings())] == ["no setting reads SELFTPT_BACKBON"]
