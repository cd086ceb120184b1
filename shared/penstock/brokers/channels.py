"""One AMQP channel as awaitable calls, each bounded in time; it dies once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any  # pika's method frames

from pika import exceptions
from pika.channel import Channel as PikaChannel

from penstock.brokers import translate
from penstock.brokers.translate import Closing
from penstock.brokers.wire import Sink, Wire
from penstock.errors import BrokerError, ConnectionLost

#: Seconds the broker has for its answer to any one call.
ANSWER_WITHIN = 10.0
CLOSE_WITHIN = 5.0


class Channel:
    """A channel of a ``Wire``, from its event loop only."""

    def __init__(self, wire: Wire, peer: str) -> None:
        """Begin to open a channel; ``opened`` must be awaited. Raises ``ConnectionLost``."""
        self.wire = wire
        self.peer = peer
        #: Done (with the reason) when the channel or its connection is gone. Never raises.
        self.closed: asyncio.Future[Closing] = wire.loop.create_future()
        self._answer: asyncio.Future[Any] = wire.loop.create_future()
        self._on_closed: Callable[[Closing], None] | None = None
        try:
            self.pika: PikaChannel = wire.channel(on_open_callback=partial(_set, self._answer))
        except exceptions.AMQPConnectionError as error:
            raise ConnectionLost(f"{peer}: no channel: {translate.one_line(str(error))}") from error
        self.number = int(self.pika.channel_number)
        self.pika.add_on_close_callback(self._on_close)

    async def opened(self) -> None:
        """Wait until the channel is open. Raises ``BrokerError``."""
        await self._wait(self._answer, "channel.open")

    async def call(self, what: str, start: Callable[..., Any]) -> Any:
        """Call *start* (a pika method that takes ``callback``) and return the broker's answer.

        Raises what the broker closed the channel with, or ``ConnectionLost``; the channel is of no use after that.
        """
        answer: asyncio.Future[Any] = self.wire.loop.create_future()
        self._raise_if_closed()
        try:
            start(callback=partial(_set, answer))
        except (exceptions.AMQPConnectionError, exceptions.ChannelWrongStateError) as error:
            raise ConnectionLost(f"{self.peer}: {what}: {translate.one_line(str(error) or repr(error))}") from error
        except (exceptions.AMQPError, ValueError, AssertionError) as error:
            self.drop()
            raise BrokerError(f"{self.peer}: {what}: {translate.one_line(str(error) or repr(error))}") from error
        return await self._wait(answer, what)

    def attach(self, sink: Sink, on_closed: Callable[[Closing], None]) -> None:
        """Give this channel's content and confirms to *sink*, and call *on_closed* at once when it is gone.

        At once, not a turn later: a frame written to a channel that is closed costs the whole connection.
        """
        if self.closed.done():
            on_closed(self.closed.result())
            return
        self.wire.sinks[self.number] = sink
        self._on_closed = on_closed

    def drop(self) -> None:
        """Close the channel without waiting. Idempotent."""
        if self.pika.is_open or self.pika.is_opening:
            self.pika.close()

    async def close(self) -> None:
        """Close the channel; without an answer in time the connection is not worth keeping either. Idempotent.

        On a connection that the broker has blocked there is no answer before the alarm is over, and none is awaited.
        """
        self.drop()
        if self.wire.blocked:
            return
        await asyncio.wait([self.closed], timeout=CLOSE_WITHIN)
        if not self.closed.done():
            self.wire.abort()

    async def _wait(self, answer: asyncio.Future[Any], what: str) -> Any:
        try:
            await asyncio.wait((answer, self.closed), timeout=ANSWER_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.drop()
            raise
        if answer.done():
            return answer.result()
        self._raise_if_closed()
        self.drop()
        raise ConnectionLost(f"{self.peer}: no answer to {what} within {ANSWER_WITHIN:.0f} s")

    def _raise_if_closed(self) -> None:
        if self.closed.done():
            raise translate.again(self.closed.result().error)

    def _on_close(self, _: PikaChannel, reason: Exception | None) -> None:
        self.wire.sinks.pop(self.number, None)
        closing = translate.closing(reason, self.peer)
        _set(self.closed, closing)
        if self._on_closed is not None:
            self._on_closed(closing)


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
