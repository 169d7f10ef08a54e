"""A whole cluster on this machine, to try out: a Redis-protocol server that forgets everything at the end (unless
SELFTPT_REDIS_URL names one that does not), and `selftpt serve --cluster` on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from benchmarks.process import tied_command
from tests.valkey import real_redis


def main(argv: Sequence[str]) -> int:
    given = os.environ.get("SELFTPT_REDIS_URL")
    with nullcontext(None) if given else real_redis() as redis:
        url = given if redis is None else redis.url
        command = tied_command(sys.executable, "-m", "service", "serve", "--cluster", *argv)
        with subprocess.Popen(command, env={**os.environ, "SELFTPT_REDIS_URL": str(url)}) as cluster:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: cluster.terminate())
            return cluster.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
