"""What the load generators share: whole requests prepared beforehand, answers read without parsing more than is needed,
and a generator that runs in a process of its own and trades JSON lines."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import Self

from benchmarks.process import tied_command


def prepared(
    port: int, path: str, images: Sequence[str], *, key: str = "", content_type: str = "image/jpeg"
) -> list[bytes]:
    """One whole request per file of a body. `key` is sent as API key."""
    bodies = [Path(image).read_bytes() for image in images]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {content_type}\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


async def answer_head(reader: asyncio.StreamReader) -> bytes:
    """The head of an answer, lower case, once all of it was read. This service always says how long its answers are,
    others send them in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if found:
        await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    elif b"\r\ntransfer-encoding: chunked" in head:
        while size := int((await reader.readuntil(b"\r\n")).split(b";", 1)[0], 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    return head


class GeneratorProcess:
    """A generator, started once and given orders. A context manager."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __enter__(self) -> Self:
        command = tied_command(sys.executable, "-m", self._module)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def answer_orders(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The other side: an order a line from standard input, an answer a line to standard output."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(work(json.loads(line))) + "\n")
        sys.stdout.flush()
