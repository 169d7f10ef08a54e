"""Logs: one JSON object per line, with the request in whose context it was written."""

from __future__ import annotations

import json
import logging

from service.telemetry.logging import JsonFormatter, TextFormatter, request_id


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("service.test").makeRecord(
        "service.test", logging.INFO, "file.py", 1, message, (), None, extra=extra
    )
    assert isinstance(made, logging.LogRecord)
    return made


def test_extra_fields_and_the_request_id_are_members() -> None:
    token = request_id.set("abc")
    line = json.loads(JsonFormatter().format(record("hello", size=3)))
    request_id.reset(token)
    assert (line["message"], line["level"], line["size"], line["request_id"]) == ("hello", "info", 3, "abc")


def test_a_message_with_line_breaks_stays_one_line() -> None:
    assert "\n" not in JsonFormatter().format(record("one\ntwo"))


def test_a_terminal_gets_short_lines() -> None:
    assert TextFormatter().format(record("hello", size=3)).endswith("info    hello  size=3")
