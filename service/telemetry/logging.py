"""Structured logs on the standard library: one JSON object per line, or short lines for a terminal.

Fields given as `extra=` become members. The request id comes from a context variable, so that no call passes it on.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Literal

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)

LogFormat = Literal["auto", "json", "text"]

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


def configure_logging(level: str, shape: LogFormat = "auto") -> None:
    """Sends everything to standard error, unless the process has configured its root logger already."""
    root = logging.getLogger()
    if root.handlers:
        return
    text = shape == "text" or (shape == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra=`, and the ids of the request and trace in whose context the record was made."""
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    ids = {"request_id": request_id.get(), "trace_id": trace_id.get()}
    return {**{key: value for key, value in ids.items() if value is not None}, **extra}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")  # a terminal's own time
        extra = " ".join(f"{key}={value}" for key, value in fields_of(record).items())
        said = f"{record.getMessage()}{'  ' if extra else ''}{extra}"
        # One record is one line: what callers send (a path, say) may hold line ends and control sequences.
        line = f"{clock} {record.levelname.lower():7} {said.translate(CONTROLS)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
