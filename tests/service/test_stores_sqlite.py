"""The SQLite file when things go wrong: kill -9, damage, foreign and newer files, locks, full and read-only disks."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import StoreError
from service.stores.sqlite import SqliteFile, Table

WRITER = """
import asyncio, sys
from pathlib import Path
from service.stores.sqlite import SqliteFile

async def write() -> None:
    store = SqliteFile(Path(sys.argv[1])).store("records")
    for number in range(100_000):
        await store.put(f"record:{number:06}", b"x" * 2000)
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()

asyncio.run(write())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "selftpt.sqlite3"


def filled(path: Path, table: Table = "records", *, fill_byte: bytes = b"\0") -> None:
    async def fill() -> None:
        file = SqliteFile(path)
        store = file.store(table)
        await asyncio.gather(*(store.put(f"record:{number}", fill_byte * 2000) for number in range(50)))
        await file.close()

    asyncio.run(fill())


def test_every_acknowledged_record_survives_kill_9(path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(100)]
    writer.kill()
    acknowledged += [int(line) for line in writer.stdout.read().splitlines()]
    writer.stdout.close()
    writer.wait()
    file = SqliteFile(path)
    found = asyncio.run(file.store("records").keys("record:", limit=1_000_000))
    asyncio.run(file.close())
    assert {f"record:{number:06}" for number in acknowledged} <= set(found)


def test_a_damaged_file_is_refused_by_name_and_left_alone(path: Path) -> None:
    filled(path)
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\xa5" * 8192
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"selftpt\.sqlite3.*damaged"):
        SqliteFile(path)
    assert path.read_bytes() == content


def test_a_truncated_file_is_refused(path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(StoreError, match="damaged"):
        SqliteFile(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("these are somebody's notes\n" * 100)
    with pytest.raises(StoreError, match=r"selftpt\.sqlite3"):
        SqliteFile(path)
    assert path.read_text().startswith("these are somebody's notes")


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE records (bread TEXT)")
    db.close()
    with pytest.raises(StoreError, match="another program"):
        SqliteFile(path)


def test_a_newer_layout_is_refused(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        SqliteFile(path)


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    with pytest.raises(StoreError, match="data"):
        SqliteFile(tmp_path / "data" / "selftpt.sqlite3")


def test_opening_at_once_from_many_sides_creates_one_file(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda _: SqliteFile(path), range(8)))
    asyncio.run(files[0].store("records").put("record:a", b"value"))
    assert asyncio.run(files[7].store("records").get("record:a")) == b"value"
    for file in files:
        asyncio.run(file.close())


async def test_two_processes_worth_of_connections_share_the_file(path: Path) -> None:
    one, other = SqliteFile(path), SqliteFile(path)
    puts = [file.store("records").put(f"record:{n}", b"v") for n in range(40) for file in (one, other)]
    await asyncio.gather(*puts)
    assert len(await other.store("records").keys("record:")) == 40
    await one.close()
    await other.close()


async def test_a_locked_file_is_a_store_error_and_recovers(path: Path) -> None:
    file = SqliteFile(path, busy_seconds=0.05)
    store = file.store("records")
    await store.put("record:a", b"value")
    intruder = sqlite3.connect(path, isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        await store.put("record:b", b"value")
    assert await store.get("record:a") == b"value"
    intruder.close()
    await store.put("record:b", b"value")
    await file.close()


async def test_a_full_disk_refuses_writes_and_keeps_what_is_there(path: Path) -> None:
    file = SqliteFile(path)
    store = file.store("records")
    await store.put("record:a", b"value")
    await file.run(lambda db: db.execute("PRAGMA max_page_count = 10").fetchone())
    with pytest.raises(StoreError, match="full"):
        await store.put("record:b", bytes(1 << 20))
    assert await store.get("record:a") == b"value"
    assert await store.keys("record:") == ["record:a"]
    await file.close()


async def test_a_read_only_file_refuses_writes_but_answers(path: Path) -> None:
    file = SqliteFile(path)
    states = file.store("states", ttl=1e6)
    await states.put("state:a", b"value")
    await file.run(lambda db: db.execute("UPDATE states SET used = used - 7200"))
    await file.run(lambda db: db.execute("PRAGMA query_only = 1"))
    with pytest.raises(StoreError, match="readonly"):
        await states.put("state:b", b"value")
    assert await states.get("state:a") == b"value"
    await file.close()


async def test_states_that_nobody_asked_for_leave_and_used_ones_stay(path: Path) -> None:
    file = SqliteFile(path)
    for key in ("state:used", "state:unused"):
        await file.store("states", ttl=86400).put(key, b"value")
    await file.run(lambda db: db.execute("UPDATE states SET used = ?", (time.time() - 80_000,)))
    assert await file.store("states", ttl=86400).get("state:used") == b"value"
    await file.store("states", ttl=50_000).put("state:new", b"value")
    assert await file.store("states", ttl=50_000).keys("") == ["state:new", "state:used"]
    await file.close()


async def test_states_give_way_when_the_file_outgrows_its_bound(path: Path) -> None:
    file = SqliteFile(path)
    states = file.store("states", ttl=86400, max_bytes=2 << 20)
    await file.store("records").put("record:a", b"value")
    for number in range(100):
        await states.put(f"state:{number:03}", bytes(100_000))
    left = await states.keys("")
    assert len(left) < 25
    assert left[-1] == "state:099"
    assert await file.store("records").get("record:a") == b"value"
    await file.close()


def test_damaged_states_do_not_keep_the_records_from_opening(path: Path) -> None:
    filled(path, "records")
    filled(path, "states", fill_byte=b"\x42")
    content = path.read_bytes()
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    path.write_bytes(b"".join(b"\x43" * 4096 if page.count(0x42) > 1000 else page for page in pages))
    file = SqliteFile(path)
    assert asyncio.run(file.store("records").get("record:7")) == bytes(2000)
    with pytest.raises(StoreError):
        asyncio.run(file.store("states").get("record:7"))
    asyncio.run(file.close())
