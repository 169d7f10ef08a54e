"""Rows of a finished batch to one file, streamed: Parquet, CSV or JSON lines by its suffix; whole, or absent."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import click

from service.commands.journal import Line

ROW_GROUP = 4096
CSV_COLUMNS = ("image", "rank", "label", "score", "adapted", "error")

Write = Callable[[Path, Iterable[Line]], None]


def writer_for(path: Path) -> Write:
    """Raises `UsageError` for a suffix that is not served, and for Parquet without pyarrow: before any work is done."""
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise click.UsageError(f"--out ends in one of {', '.join(WRITERS)}, not in {path.suffix or 'nothing'}")
    if write is write_parquet:
        try:
            import_module("pyarrow.parquet")
        except ImportError as missing:
            advice = "pip install 'self-tpt-service[parquet]', or choose .jsonl or .csv"
            raise click.UsageError(f"Parquet needs pyarrow ({missing}): {advice}") from missing
    return write


def write_whole(path: Path, lines: Iterable[Line], write: Write) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    write(unfinished, lines)
    os.replace(unfinished, path)


def write_jsonl(path: Path, lines: Iterable[Line]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            row = {name: value for name, value in line.items() if name != "place"}
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n")


def write_csv(path: Path, lines: Iterable[Line]) -> None:
    """A row per prediction, or one for an image with an error."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(CSV_COLUMNS)
        for line in lines:
            if line["error"] is not None:
                rows.writerow([line["image"], "", "", "", "", line["error"]])
            for rank, (label, score) in enumerate(line["top"], start=1):
                rows.writerow([line["image"], rank, label, f"{score:.6f}", line["adapted"], ""])


def write_parquet(path: Path, lines: Iterable[Line]) -> None:
    """`label` and `score` are the best of `labels` and `scores`, which are empty where `error` is not."""
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    text = arrow.string()
    schema = arrow.schema([
        ("image", text), ("label", text), ("score", arrow.float32()), ("adapted", arrow.bool_()), ("error", text),
        ("labels", arrow.list_(text)), ("scores", arrow.list_(arrow.float32())),
    ])  # fmt: skip
    with parquet.ParquetWriter(path, schema) as file:
        for group in groups(lines):
            file.write_table(arrow.Table.from_pylist([columns(line) for line in group], schema=schema))


def columns(line: Line) -> dict[str, Any]:
    top = line["top"]
    return {
        "image": line["image"].encode("utf-8", "backslashreplace").decode(),
        "label": top[0][0] if top else None,
        "score": top[0][1] if top else None,
        "adapted": line["adapted"],
        "error": line["error"],
        "labels": [label for label, _ in top],
        "scores": [score for _, score in top],
    }


def groups(lines: Iterable[Line]) -> Iterator[list[Line]]:
    waiting = iter(lines)
    while group := list(islice(waiting, ROW_GROUP)):
        yield group


WRITERS: dict[str, Write] = {".parquet": write_parquet, ".csv": write_csv, ".jsonl": write_jsonl}
