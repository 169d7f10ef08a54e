"""What was measured, one JSON line each, and what is known already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Key = tuple[str, bool, int, int]
"""Server, whether without a model, workers, round."""


@dataclass(frozen=True, slots=True)
class Record:
    """One load on one server in one round. Times in milliseconds, memory in MiB; `conditions` names all that must be
    the same for records to be comparable."""

    server: str
    noop: bool
    workers: int
    round: int
    conditions: str
    concurrency: int
    rate: float
    p50: float
    p95: float
    p99: float
    cpu_ms: float
    memory: float
    processes: int
    start_seconds: float
    failures: int = 0

    @property
    def key(self) -> Key:
        return self.server, self.noop, self.workers, self.round


class Journal:
    """Of a server's round, all loads are written together or none."""

    def __init__(self, file: Path, conditions: str) -> None:
        self._file, self._conditions = file, conditions
        self.records = [record for record in _read(file) if record.conditions == conditions]

    def __contains__(self, key: Key) -> bool:
        return any(record.key == key for record in self.records)

    def add(self, records: Sequence[Record]) -> None:
        self.records += records
        with self._file.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(record)) + "\n" for record in records))


def _read(file: Path) -> list[Record]:
    if not file.exists():
        return []
    return [Record(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line]
