"""A look into the broker's queues with another client than Penstock's own; nothing is taken out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

from penstock import ConnectionLost
from penstock.schedules.state import State, read_state
from penstock.topology.names import SCHEDULER_VIEW
from penstock.urls import BrokerUrl
from services.demo.accounting import Letter

#: The most letters of one queue that are looked at.
MOST = 50_000

_PATIENCE = 10.0


class Eye:
    """Sees what is in the queues of a broker. Every look raises ``ConnectionLost`` when the broker is gone."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def letters(self, queues: Sequence[str], run: str) -> list[Letter]:
        """The letters of *run* in *queues*. All go back to their places: a channel closed without acks returns them."""
        found: list[Letter] = []
        for name in queues:
            async with self._channel() as channel:
                queue = await channel.get_queue(name, ensure=False)
                found += [letter async for letter in _look(queue) if letter.run == run]
        return found

    async def ready(self, queues: Sequence[str]) -> int:
        """How many messages are ready in *queues* together."""
        return sum([(await self._counts(queue))[0] for queue in queues])

    async def consumers(self, queue: str) -> int:
        """How many consume *queue*."""
        return (await self._counts(queue))[1]

    async def has(self, queue: str) -> bool:
        """Whether there is such a queue."""
        async with self._connection.channel() as channel:
            try:
                await channel.declare_queue(queue, passive=True, timeout=_PATIENCE)
            except ChannelNotFoundEntity:
                return False
            return True

    async def schedulers_state(self) -> State | None:
        """The newest state of the schedulers, None when there is none. It goes back to its place as letters do."""
        async with self._channel() as channel:
            queue = await channel.get_queue(SCHEDULER_VIEW, ensure=False)
            message = await queue.get(fail=False, timeout=_PATIENCE)
            return None if message is None else read_state(message.body)

    async def _counts(self, queue: str) -> tuple[int, int]:
        async with self._channel() as channel:
            answer = (await channel.declare_queue(queue, passive=True, timeout=_PATIENCE)).declaration_result
            return answer.message_count or 0, answer.consumer_count or 0

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        try:
            async with self._connection.channel() as channel:
                yield channel
        except (AMQPError, OSError) as error:
            raise ConnectionLost(f"cannot look into the queues any more: {error}") from error


@asynccontextmanager
async def opened(url: BrokerUrl) -> AsyncIterator[Eye]:
    """An eye on the broker at *url* for the time of the block. Raises ``ConnectionLost``."""
    try:
        connection = await aio_pika.connect(
            host=url.host,
            port=url.port,
            login=url.user,
            password=url.password,
            virtualhost=url.vhost,
            ssl=url.tls,
            ssl_context=url.ssl_context(),
            timeout=_PATIENCE,
        )
    except (AMQPError, OSError) as error:
        raise ConnectionLost(f"{url.masked} cannot be looked into: {error}") from error
    async with connection:
        yield Eye(connection)


async def _look(queue: AbstractQueue) -> AsyncIterator[Letter]:
    for _ in range(MOST):
        message = await queue.get(fail=False, timeout=_PATIENCE)
        if message is None:
            return
        yield _letter(queue.name, message)


def _letter(queue: str, message: AbstractIncomingMessage) -> Letter:
    headers = message.headers
    return Letter(
        id=message.message_id or "",
        run=str(message.correlation_id or ""),
        queue=queue,
        reason=str(headers.get("penstock-reason") or _brokers_reason(headers.get("x-death"))),
        error=str(headers.get("penstock-error") or ""),
    )


def _brokers_reason(deaths: object) -> str:
    """Why the broker itself dead-lettered a message."""
    match deaths:
        case [{"reason": reason}, *_]:
            return f"{reason} (by the broker)"
        case _:
            return "unrouted"
