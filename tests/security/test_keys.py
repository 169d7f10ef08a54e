"""API keys: what is kept of them, who they let in, and when they stop doing so."""

from __future__ import annotations

import json
import os
import statistics
import time
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import cli
from service.errors import Unauthorized
from service.security.key_file import KeyFileError, read_keys, write_keys
from service.security.keyring import Keyring
from service.security.keys import ApiKey, new_key, utc_now
from tests.security.keys import add_key, id_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def bearer(header: dict[str, str]) -> str:
    return header["Authorization"]


def test_the_file_holds_salted_hashes_and_nothing_else_of_the_secret(path: Path) -> None:
    secret = bearer(add_key(path, "classify")).split("_", 2)[2]
    add_key(path, "admin")
    text = path.read_text()
    salts = [entry["salt"] for entry in json.loads(text)["keys"]]
    assert secret not in text
    assert len(set(salts)) == 2
    assert path.stat().st_mode & 0o077 == 0


def test_a_key_is_who_it_says(path: Path) -> None:
    header = add_key(path, "classify", tenant="acme")
    caller = Keyring(path).caller(bearer(header))
    assert (caller.id, caller.tenant, caller.may("classify"), caller.may("metrics")) == (
        id_of(header), "acme", True, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given[:-1] + ("A" if given[-1] != "A" else "B"),
        lambda given: given.replace("stpt_", "stpt_0", 1)[: len(given)],
        lambda given: given + "A",
        lambda given: given.replace("Bearer", "Basic"),
        lambda given: "Bearer ",
        lambda given: "Bearer stpt_000000000000_" + "A" * 43,
        lambda given: "Bearer \x00\xff" + "é" * 40,
        lambda given: None,
    ],
)
def test_anything_but_the_key_is_refused(change: object, path: Path) -> None:
    given = bearer(add_key(path, "admin"))
    with pytest.raises(Unauthorized):
        Keyring(path).caller(change(given))  # type: ignore[operator]  # one of the functions above


def test_an_expired_key_is_refused_like_a_wrong_one(path: Path) -> None:
    expired = add_key(path, "admin", expires=utc_now() - timedelta(seconds=1))
    with pytest.raises(Unauthorized) as late:
        Keyring(path).caller(bearer(expired))
    with pytest.raises(Unauthorized) as wrong:
        Keyring(path).caller("Bearer stpt_000000000000_" + "A" * 43)
    assert late.value.detail == wrong.value.detail


def test_a_revoked_key_stops_working_while_the_service_runs(path: Path) -> None:
    now = [0.0]
    header = add_key(path, "classify")
    ring = Keyring(path, clock=lambda: now[0])
    ring.caller(bearer(header))
    outcome = CliRunner().invoke(cli, ["keys", "revoke", id_of(header), "--file", str(path)])
    assert outcome.exit_code == 0
    now[0] = 1.5
    with pytest.raises(Unauthorized):
        ring.caller(bearer(header))


def test_a_broken_file_changes_nothing_and_a_mended_one_counts(path: Path) -> None:
    now = [0.0]
    header = add_key(path, "classify", images_per_minute=10)
    ring = Keyring(path, clock=lambda: now[0])
    ring.caller(bearer(header)).pay("images", 4)
    whole = path.read_text()
    path.write_text("{")
    now[0] = 2.0
    assert ring.caller(bearer(header)).meters["images"].left >= 6
    path.write_text(whole)
    later = add_key(path, "metrics")
    now[0] = 4.0
    assert ring.caller(bearer(later)).may("metrics")
    assert ring.caller(bearer(header)).meters["images"].left < 10  # what was used stays used


@pytest.mark.parametrize("text", ["", "[]", '{"keys": [{"id": "x"}]}', '{"version": 2, "keys": []}', "\x00\xff"])
def test_a_file_that_is_none_is_refused_at_start_without_showing_what_is_in_it(text: str, path: Path) -> None:
    path.write_text(text, encoding="latin-1")
    with pytest.raises(KeyFileError, match="no file of API keys"):
        Keyring(path)


def test_a_file_that_everybody_can_write_is_refused(path: Path) -> None:
    add_key(path, "classify")
    path.chmod(0o666)
    with pytest.raises(KeyFileError, match="written by everybody"):
        read_keys(path)


def test_rewriting_the_file_keeps_its_mode(path: Path) -> None:
    add_key(path, "classify")
    path.chmod(0o640)
    add_key(path, "classify")
    assert path.stat().st_mode & 0o777 == 0o640
    assert [name for name in os.listdir(path.parent) if name != path.name] == []


def test_an_unknown_id_takes_as_long_as_a_wrong_secret(path: Path) -> None:
    """Both cost one HMAC. Compared with wide room: this catches a missing one, not a nanosecond."""
    known = id_of(add_key(path, "classify"))
    ring = Keyring(path)

    times: dict[str, list[float]] = {known: [], "0" * 12: []}
    for _ in range(400):
        for one, taken in times.items():  # interleaved: whatever else the machine does, it does to both
            began = time.perf_counter()
            with pytest.raises(Unauthorized):
                ring.caller(f"Bearer stpt_{one}_" + "A" * 43)
            taken.append(time.perf_counter() - began)
    assert 1 / 3 < statistics.median(times["0" * 12]) / statistics.median(times[known]) < 3


def test_the_command_creates_lists_and_revokes(path: Path) -> None:
    runner = CliRunner(env={"SELFTPT_API_KEYS_FILE": str(path)})
    made = runner.invoke(
        cli, ["keys", "create", "--scope", "classify", "--tenant", "acme", "--images-per-minute", "60", "--json"]
    )
    key = json.loads(made.stdout)
    assert Keyring(path).caller(f"Bearer {key['key']}").tenant == "acme"
    runner.invoke(cli, ["keys", "revoke", key["id"]])
    listed = json.loads(runner.invoke(cli, ["keys", "list", "--json"]).stdout)
    assert [(one["id"], one["status"], one["images_per_minute"]) for one in listed] == [(key["id"], "revoked", 60)]
    assert key["key"].split("_", 2)[2] not in str(listed)
    assert "acme" in runner.invoke(cli, ["keys", "list"]).stdout


def test_a_tenant_cannot_be_named_so_that_it_reaches_into_another() -> None:
    for name in ("a:b", "", "A", "../x", "tenant:default", "x" * 64):
        with pytest.raises(ValueError, match="tenant"):
            new_key(frozenset({"classify"}), tenant=name)


def test_two_keys_of_one_id_are_refused(path: Path) -> None:
    key, _ = new_key(frozenset({"classify"}))
    write_keys(path, [key, key])
    with pytest.raises(KeyFileError, match="twice"):
        read_keys(path)


def test_moments_carry_their_zone(path: Path) -> None:
    key, _ = new_key(frozenset({"classify"}))
    with pytest.raises(ValueError, match="timezone"):
        ApiKey.model_validate({**key.model_dump(), "expires": "2030-01-01T00:00:00"})
