"""A scripted AMQP server: answers as a broker does until a test says otherwise, and shows what reached it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any  # pika's method objects

from pika import amqp_object, frame, spec

from tests.support.inbox import PATIENCE
from tests.support.waiting import eventually

Answer = Callable[[Any], amqp_object.Method | None]

_CAPABILITIES = {"capabilities": {"basic.nack": True, "publisher_confirms": True, "consumer_cancel_notify": True}}

#: What a broker answers to each call; a test may replace an answer, or take it away to have a broker that hangs there.
ANSWERS: dict[type, Answer] = {
    spec.Connection.StartOk: lambda _: spec.Connection.Tune(2047, 131072, 60),
    spec.Connection.Open: lambda _: spec.Connection.OpenOk(),
    spec.Connection.Close: lambda _: spec.Connection.CloseOk(),
    spec.Channel.Open: lambda _: spec.Channel.OpenOk(),
    spec.Channel.Close: lambda _: spec.Channel.CloseOk(),
    spec.Confirm.Select: lambda _: spec.Confirm.SelectOk(),
    spec.Basic.Qos: lambda _: spec.Basic.QosOk(),
    spec.Basic.Consume: lambda call: spec.Basic.ConsumeOk(call.consumer_tag),
    spec.Basic.Cancel: lambda call: spec.Basic.CancelOk(call.consumer_tag),
    spec.Queue.Declare: lambda call: spec.Queue.DeclareOk(call.queue, 5, 1),
}


class Peer:
    """The broker's end of one connection."""

    def __init__(self, port: int) -> None:
        self.url = f"amqp://mailer:secret@127.0.0.1:{port}/"
        self.answers = dict(ANSWERS)
        self.calls: list[tuple[int, Any]] = []  # every method that came, by channel
        self.headers: list[frame.Header] = []
        self.greeting: bytes | None = frame.Method(0, spec.Connection.Start(0, 9, _CAPABILITIES)).marshal()
        self.reads: list[int] = []  # the size of each read from the socket
        self._writer: asyncio.StreamWriter | None = None
        self._reading = asyncio.Event()
        self._reading.set()
        self._buffer = b""

    def send(self, channel: int, *methods: amqp_object.Method) -> None:
        """Send methods, all in one write."""
        self.send_raw(b"".join(frame.Method(channel, method).marshal() for method in methods))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self._writer is not None
        self._writer.write(data)

    def send_content(self, channel: int, method: amqp_object.Method, header: bytes, body: bytes = b"") -> None:
        """Send a message whose content header has *header* (flags and properties) for its properties."""
        head = struct.pack(">HHQ", 60, 0, len(body)) + header
        frames = frame.Method(channel, method).marshal() + _frame(spec.FRAME_HEADER, channel, head)
        self.send_raw(frames + (_frame(spec.FRAME_BODY, channel, body) if body else b""))

    def stop_reading(self) -> None:
        """Leave what comes in unread, as a broker under an alarm does."""
        self._reading.clear()

    def go_on_reading(self) -> None:
        """Read again."""
        self._reading.set()

    def hang_up(self) -> None:
        """Cut the connection without a word."""
        if self._writer is not None:
            self._writer.transport.abort()

    def named(self, kind: type) -> list[Any]:
        """The calls of *kind* so far."""
        return [method for _, method in self.calls if isinstance(method, kind)]

    async def saw(self, kind: type, number: int = 1) -> list[Any]:
        """Wait until *number* calls of *kind* have come."""
        await eventually(lambda: len(self.named(kind)) >= number, PATIENCE)
        return self.named(kind)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak AMQP on one connection."""
        self._writer = writer
        await reader.readexactly(8)
        if self.greeting is None:
            await reader.read()
            return
        writer.write(self.greeting)
        while data := await reader.read(65536):
            self.reads.append(len(data))
            self._take(data)
            await self._reading.wait()

    def _take(self, data: bytes) -> None:
        self._buffer += data
        while True:
            size, value = frame.decode_frame(self._buffer)
            if value is None:
                return
            self._buffer = self._buffer[size:]
            self._on_frame(value)

    def _on_frame(self, value: Any) -> None:
        if isinstance(value, frame.Header):
            self.headers.append(value)
        if not isinstance(value, frame.Method):
            return
        self.calls.append((value.channel_number, value.method))
        answer = self.answers.get(type(value.method))
        reply = answer(value.method) if answer is not None else None
        if reply is not None:
            self.send(value.channel_number, reply)


@asynccontextmanager
async def amqp_peer() -> AsyncIterator[Peer]:
    """A peer that listens on a free port of the loopback address."""
    conversations: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        try:
            await peer.serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the driver under test hung up, which the test looks at from its own side
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    peer = Peer(server.sockets[0].getsockname()[1])
    async with server:
        yield peer
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"
