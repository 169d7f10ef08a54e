"""`selftpt serve` as a process: it says where it is, the line it prints works, and it ends when asked to."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.needs import missing

ROOT = Path(__file__).resolve().parents[2]
START_CPU_SECONDS = 10.0
PATIENCE = 60.0


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process and its log; killed if the test has not ended it."""
    log = folder / "log.txt"
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--data-dir", str(folder / "data"), *arguments]
    with log.open("wb") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SELFTPT_LOG_FORMAT": "json"}
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=environment)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def said(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8")
        if match := re.search(pattern, text):
            return match[1]
        assert process.poll() is None, text
        time.sleep(0.05)
    raise AssertionError(log.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_it_is_ready_and_the_printed_line_works(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, log):
        address = said(process, log, r"ready on (http://[\d.:]+)")
        ready = httpx.get(f"{address}/readyz")
        answer = json.loads(run_line(said(process, log, r"(curl .*/v1/classify)")))
    assert ready.status_code == 200
    assert answer["results"][0]["predictions"][0]["label"] == "cat"


@pytest.mark.slow
def test_the_start_costs_less_than_ten_seconds_of_one_core(tmp_path: Path) -> None:
    # Processor time, not wall time: the machine that runs this may be busy with other things.
    before = os.times()
    with serving(tmp_path) as (process, log):
        said(process, log, r"ready on (http://[\d.:]+)")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < START_CPU_SECONDS


def test_a_start_that_cannot_succeed_says_why_in_words_and_not_as_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "selftpt.sqlite3").write_bytes(b"this is no database" * 100)
    with serving(tmp_path) as (process, log):
        assert process.wait(PATIENCE) != 0
        text = log.read_text(encoding="utf-8")
    assert "selftpt.sqlite3" in text.splitlines()[-1] + text.splitlines()[-2]
    assert "Traceback" not in text


def run_line(line: str) -> str:
    if shutil.which("curl") is None:
        raise missing("curl is not installed")
    run = subprocess.run(["sh", "-c", f"{line} -sS"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as (process, log):
        said(process, log, r"ready on (http://[\d.:]+)")
        process.send_signal(number)
        assert process.wait(20) == 0
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_a_taken_port_is_one_readable_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "service", "serve", "--port", port, "--data-dir", str(tmp_path)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in run.stderr
    assert "--port" in run.stderr


def test_a_setting_that_cannot_work_is_one_readable_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--data-dir", str(tmp_path)]
    environment = {**os.environ, "SELFTPT_REDIS_URL": "ftp://somewhere"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert run.returncode == 1
    assert "must start with redis://" in run.stderr
    assert "Traceback" not in run.stderr
