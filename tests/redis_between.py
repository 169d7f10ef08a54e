"""A TCP line to a Redis on a unix socket, as bad as wanted: slow, or open and silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Line:
    """`delay`: seconds by which everything sent is held up. `silent`: what is sent vanishes, as behind a router that
    forgot the connection; nobody is told."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._both: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.delay = 0.0
        self.silent = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        self._both |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await asyncio.sleep(self.delay)
                if not self.silent:
                    writer.write(data)
                    await writer.drain()
        writer.close()

    def hang_up(self) -> None:
        for writer in self._both:
            writer.transport.abort()


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    line = Line(url.removeprefix("unix://"))
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
        line.hang_up()
