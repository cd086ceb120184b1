"""A TCP proxy between a client and a broker, for faults of the network that no broker makes on request."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

_FRAME = struct.Struct(">BHI")
_METHOD = 1
_DELIVER = b"\x00\x3c\x00\x3c"


class Proxy:
    """Passes bytes on until a test cuts the connections or the cable, refuses new ones, or swallows the deliveries."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        #: While true, new connections are closed at once.
        self.refusing = False
        #: While true, deliveries vanish on their way to the client, as if the broker had forgotten its consumer.
        self.swallowing = False
        self.swallowed = 0
        #: While true, all bytes vanish both ways and the connections stay: a cable that was pulled.
        self.cut_off = False

    @property
    def url(self) -> str:
        """The URL by which the broker is reached through this proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f"{self._target.netloc.rpartition(':')[0]}:{port}").geturl()

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._open) // 2

    def cut(self) -> None:
        """Break every connection, as a network does: no goodbye to either side."""
        for writer in self._open:
            writer.transport.abort()

    async def start(self) -> None:
        """Listen on a free port of the loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Cut everything and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        broker_reader, broker_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._open |= {writer, broker_writer}
        for work in (self._pump(reader, broker_writer), self._pump_frames(broker_reader, writer)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self.cut_off:
                    writer.write(data)
                    await writer.drain()
        self._close(writer)

    async def _pump_frames(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass frames on whole; a swallowed delivery takes its header and body frames with it."""
        swallowed: set[int] = set()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(_FRAME.size)
                kind, channel, size = _FRAME.unpack(head)
                rest = await reader.readexactly(size + 1)
                if kind == _METHOD:
                    swallowed.discard(channel)
                    if self.swallowing and rest[:4] == _DELIVER:
                        swallowed.add(channel)
                        self.swallowed += 1
                if not self.cut_off and (channel not in swallowed or kind > 3):
                    writer.write(head + rest)
                    await writer.drain()
        self._close(writer)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.close()


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the broker at *url*."""
    proxy = Proxy(url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
