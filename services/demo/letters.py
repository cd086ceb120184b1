"""A look into the dead-letter queues with another client than Penstock's own; nothing is taken out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, AbstractQueue
from pamqp.commands import Queue

from penstock.urls import BrokerUrl
from services.demo.accounting import Letter

#: The most letters of one queue that are looked at.
MOST = 50_000


class Letters:
    """The dead letters in *queues* of the broker behind *connection*."""

    def __init__(self, connection: AbstractConnection, queues: Sequence[str]) -> None:
        self._connection = connection
        self._queues = queues

    async def count(self) -> int:
        """How many letters lie there, of any run."""
        return sum([await depth(self._connection, queue) for queue in self._queues])

    async def of(self, run: str) -> list[Letter]:
        """The letters of *run*. All go back to their places: closing a channel without an ack returns them in order."""
        found: list[Letter] = []
        for name in self._queues:
            async with self._connection.channel() as channel:
                queue = await channel.get_queue(name, ensure=False)
                found += [letter async for letter in _look(queue) if letter.run == run]
        return found


async def depth(connection: AbstractConnection, queue: str) -> int:
    """How many messages are ready in *queue*."""
    return (await _declared(connection, queue)).message_count or 0


async def consumers(connection: AbstractConnection, queue: str) -> int:
    """How many consume *queue*."""
    return (await _declared(connection, queue)).consumer_count or 0


async def _declared(connection: AbstractConnection, queue: str) -> Queue.DeclareOk:
    async with connection.channel() as channel:
        return (await channel.declare_queue(queue, passive=True)).declaration_result


async def connect(url: BrokerUrl) -> AbstractConnection:
    """A connection of aio-pika to *url*; a context manager that closes it."""
    return await aio_pika.connect(
        host=url.host,
        port=url.port,
        login=url.user,
        password=url.password,
        virtualhost=url.vhost,
        ssl=url.tls,
        ssl_context=url.ssl_context(),
        timeout=10,
    )


async def _look(queue: AbstractQueue) -> AsyncIterator[Letter]:
    for _ in range(MOST):
        message = await queue.get(fail=False, timeout=10)
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
