"""The embedded durable backend: one SQLite file, written through one thread. Survives kill -9 and power loss.

A file that is damaged, foreign or newer is refused by name; nothing is ever moved aside or rebuilt silently.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal, TypeVar

from service.errors import StoreError

_log = logging.getLogger(__name__)

T = TypeVar("T")
Table = Literal["records", "states"]

APPLICATION_ID = 0x5E1F7B7
SCHEMA = 1
FILE_BYTES = 4 * 2**30
"""How large the file may grow before the table of states gives way. A 1,000-class state is about 2 MB."""
_BUSY_SECONDS = 5.0
_USED_EVERY = 3600.0
"""How stale the time of last use may get: a read turns into a write at most once in this many seconds."""

_CREATE = """
CREATE TABLE {table} (key TEXT NOT NULL UNIQUE, used REAL NOT NULL, value BLOB NOT NULL)
"""
_PUT = """
INSERT INTO {table} (key, used, value) VALUES (?1, ?2, ?3)
ON CONFLICT (key) DO UPDATE SET used = ?2, value = ?3
"""
_SHRINK = """
DELETE FROM {table} WHERE key IN
(SELECT key FROM {table} ORDER BY used LIMIT 1 + (SELECT count(*) FROM {table}) / 10)
"""
_KEYS = """
SELECT key FROM {table} WHERE key >= ?1 AND key < CAST(?2 AS TEXT) AND key > ?3 ORDER BY key LIMIT ?4
"""


class SqliteFile:
    """The open file and its thread, shared by its tables. Opening blocks and raises `StoreError`."""

    def __init__(self, path: Path, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-store")
        try:
            self._db = self._thread.submit(self._open, busy_seconds).result()
        except StoreError:
            self._thread.shutdown()
            raise

    def store(self, table: Table, *, ttl: float | None = None, max_bytes: int = FILE_BYTES) -> SqliteStore:
        return SqliteStore(self, table, ttl=ttl, max_bytes=max_bytes)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction on the file's thread. A caller that goes away does not undo it."""
        try:
            future = self._thread.submit(self._transact, work)
        except RuntimeError as error:
            raise StoreError(f"{self.path} is closed") from error
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Waits for the writes under way."""
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        try:
            self._thread.submit(self._db.close)
        except RuntimeError:
            return
        self._thread.shutdown()

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._db:
                return work(self._db)
        except (sqlite3.Error, OSError) as error:
            # Clients read the error's text, so the path goes to the log only.
            _log.error("%s: %s", self.path, error)
            raise StoreError(f"the label-set file cannot be used: {error}") from error

    def _open(self, busy_seconds: float) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as undo:
                db = sqlite3.connect(self.path, timeout=busy_seconds)
                undo.callback(db.close)
                self._prepare(db)
                undo.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path}: {error}{_advice(error)}") from error
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        self._check_owner(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        with db:
            db.execute("BEGIN IMMEDIATE")
            if _pragma(db, "user_version") == 0:
                _create(db)
        # Only the records: they are the truth, while a damaged state is computed again. It keeps opening fast, too.
        verdict = db.execute("PRAGMA quick_check('records')").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def _check_owner(self, db: sqlite3.Connection) -> None:
        with db:
            db.execute("BEGIN")  # one look at all three: somebody else may be creating the file just now
            owner, schema, changes = (_pragma(db, one) for one in ("application_id", "user_version", "schema_version"))
        if owner != APPLICATION_ID and (owner or schema or changes):
            raise StoreError(f"{self.path} belongs to another program; choose another data directory")
        if schema > SCHEMA:
            raise StoreError(
                f"{self.path} was written by a newer version of this service (layout {schema}, this one reads "
                f"{SCHEMA}); run that version, or choose another data directory"
            )


class SqliteStore:
    """One table of the file. With `ttl` (seconds) it is a cache: entries that nobody asked for in that long are
    dropped in time, and the longest unused tenth goes when the file has outgrown `max_bytes`."""

    def __init__(
        self, file: SqliteFile, table: Table, *, ttl: float | None = None, max_bytes: int = FILE_BYTES
    ) -> None:
        self._file = file
        self._table = table
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._next_sweep = 0.0

    async def get(self, key: str) -> bytes | None:
        return await self._file.run(lambda db: self._get(db, key))

    async def put(self, key: str, value: bytes) -> None:
        await self._file.run(lambda db: self._put(db, key, value))

    async def delete(self, key: str) -> bool:
        statement = f"DELETE FROM {self._table} WHERE key = ?"
        return await self._file.run(lambda db: db.execute(statement, (key,)).rowcount > 0)

    async def keys(self, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        # 0xFF sorts behind every byte of UTF-8, so the range ends exactly where the prefix does.
        bounds = (prefix, prefix.encode() + b"\xff", after, limit)
        rows = await self._file.run(lambda db: db.execute(_KEYS.format(table=self._table), bounds).fetchall())
        return [key for (key,) in rows]

    async def close(self) -> None:
        """Closes the file for every table of it."""
        await self._file.close()

    def _get(self, db: sqlite3.Connection, key: str) -> bytes | None:
        row = db.execute(f"SELECT value, used FROM {self._table} WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value, used = row
        if self._ttl is not None and time.time() - used > _USED_EVERY:
            # A full or read-only disk must not make a readable value unreadable.
            with suppress(sqlite3.OperationalError):
                db.execute(f"UPDATE {self._table} SET used = ? WHERE key = ?", (time.time(), key))
        return bytes(value)

    def _put(self, db: sqlite3.Connection, key: str, value: bytes) -> None:
        now = time.time()
        if self._ttl is not None:
            self._make_room(db, now, self._ttl)
        db.execute(_PUT.format(table=self._table), (key, now, value))

    def _make_room(self, db: sqlite3.Connection, now: float, ttl: float) -> None:
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + min(_USED_EVERY, ttl)
            db.execute(f"DELETE FROM {self._table} WHERE used < ?", (now - ttl,))
        pages = _pragma(db, "page_count") - _pragma(db, "freelist_count")
        if pages * _pragma(db, "page_size") > self._max_bytes and self._table_bytes(db) > self._max_bytes:
            db.execute(_SHRINK.format(table=self._table))

    def _table_bytes(self, db: sqlite3.Connection) -> int:
        """Of this table alone: support images may fill the file, and states that give way would not help that."""
        return int(db.execute(f"SELECT coalesce(sum(length(value)), 0) FROM {self._table}").fetchone()[0])


def _create(db: sqlite3.Connection) -> None:
    for table in ("records", "states"):
        db.execute(_CREATE.format(table=table))
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA}")


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _advice(error: Exception) -> str:
    """What an operator can do about it. A locked or full disk needs no advice: the message says it all."""
    if type(error) is sqlite3.DatabaseError:
        return " (the file is damaged; put a backup in its place, or move it and its -wal and -shm files away)"
    return ""
