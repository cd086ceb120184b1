"""Declares and deletes topology through aio-pika: one plain connection, one command long."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aio_pika
from aio_pika import exceptions
from aio_pika.abc import AbstractChannel, AbstractConnection

from penstock.brokers.translate import one_line, refused, unreachable
from penstock.errors import AccessRefused, BrokerError, ConnectionLost, TopologyMismatch
from penstock.topology.migration import way_to_change_exchange, way_to_change_queue
from penstock.topology.model import Binding, Exchange, Queue, Topology
from penstock.urls import BrokerUrl

CONNECT_TIMEOUT = 5.0

#: For one declaration (seconds): a quorum queue's first one waits for its members.
STEP_TIMEOUT = 30.0

#: How many mismatches an error spells out; ``penstock topology plan`` shows all.
SHOWN = 3

#: By the word that the broker's text begins with, which is what aiormq keeps of a reply code.
_CODES = {
    "ACCESS_REFUSED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_LOCKED": 405,
    "PRECONDITION_FAILED": 406,
    "NOT_ALLOWED": 530,
}

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<thing>queue|exchange) '(?P<name>[^']*)' in vhost '[^']*': "
    r"received (?P<wanted>.*) but current is (?P<live>.*)"
)
_VALUE = re.compile(r"the value '(.*)' of type '\w+'")


async def open_admin(url: BrokerUrl | str) -> AioPikaAdmin:
    """Connect and log in to *url*, within ``CONNECT_TIMEOUT``.

    Raises ``ConfigError`` for a URL that cannot be read, ``AccessRefused``, ``ConnectionLost``. Tries once.
    """
    url = BrokerUrl.parse(url) if isinstance(url, str) else url
    for name in ("aiormq", "aio_pika"):  # they log what is translated here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = url.ssl_context()
    try:
        connection = await aio_pika.connect(
            host=url.host,
            port=url.port,
            login=url.user,
            password=url.password,
            virtualhost=url.vhost,
            ssl=context is not None,
            ssl_context=context,
            timeout=CONNECT_TIMEOUT,
            client_properties={"connection_name": "penstock topology"},
        )
    except (exceptions.AMQPError, OSError) as error:
        raise _not_connected(error, url) from error
    return AioPikaAdmin(connection, url.masked)


class AioPikaAdmin:
    """An ``Admin`` over one aio-pika connection. Use it from its event loop only."""

    def __init__(self, connection: AbstractConnection, peer: str) -> None:
        self._connection = connection
        self._peer = peer

    async def declare(self, topology: Topology) -> None:
        """Declare everything in *topology*, idempotently.

        Raises ``TopologyMismatch`` naming what the broker has otherwise, with both values and the way to migrate: what
        was missing is declared then, bindings are not, and nothing that existed is changed. Raises ``AccessRefused``
        and ``ConnectionLost``.
        """
        mismatches = [words for exchange in topology.exchanges if (words := await self._declare_exchange(exchange))]
        mismatches += [words for queue in topology.queues if (words := await self._declare_queue(queue))]
        if mismatches:
            raise TopologyMismatch(f"{self._peer}: {_some(mismatches)}")
        async with self._channel() as channel:
            for binding in topology.bindings:
                await _bind(channel, binding)

    async def delete(self, exchanges: Sequence[Exchange], queues: Sequence[Queue]) -> None:
        """Delete exchanges, and queues without ready messages and consumers; what does not exist is no error.

        Raises ``TopologyMismatch`` naming the queues in use, before anything is deleted. Quorum queues know no
        ``if-empty``, so this looks first: a message that arrives in between goes with its queue.
        """
        busy = [queue.name for queue in queues if await self._in_use(queue)]
        if busy:
            raise TopologyMismatch(f"{self._peer}: not deleted, because not empty or still consumed: {', '.join(busy)}")
        async with self._channel() as channel:
            for queue in queues:
                await channel.queue_delete(queue.name, timeout=STEP_TIMEOUT)
            for exchange in exchanges:
                await channel.exchange_delete(exchange.name, timeout=STEP_TIMEOUT)

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        await self._connection.close()

    async def _declare_exchange(self, exchange: Exchange) -> str | None:
        """Declare it; return what differs, or None."""
        async with self._channel() as channel:
            try:
                await channel.declare_exchange(
                    exchange.name,
                    exchange.type,
                    durable=True,
                    internal=exchange.internal,
                    arguments=dict(exchange.arguments),
                    timeout=STEP_TIMEOUT,
                )
            except exceptions.ChannelPreconditionFailed as error:
                return _difference(error, way_to_change_exchange(exchange.name))
        return None

    async def _declare_queue(self, queue: Queue) -> str | None:
        """Declare it; return what differs, or None."""
        async with self._channel() as channel:
            try:
                await channel.declare_queue(
                    queue.name, durable=True, arguments=dict(queue.arguments), timeout=STEP_TIMEOUT
                )
            except exceptions.ChannelPreconditionFailed as error:
                return _difference(error, way_to_change_queue(queue.name))
        return None

    async def _in_use(self, queue: Queue) -> bool:
        async with self._channel() as channel:
            try:
                live = await channel.declare_queue(queue.name, passive=True, timeout=STEP_TIMEOUT)
            except exceptions.ChannelNotFoundEntity:
                return False
            found = live.declaration_result
            return bool(found.message_count or found.consumer_count)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel of its own for one step: a refusal ends the channel, not the connection."""
        if self._connection.is_closed:
            raise ConnectionLost(f"{self._peer}: the connection is closed")
        try:
            async with self._connection.channel(publisher_confirms=False) as channel:
                yield channel
        except (exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> BrokerError:
        if isinstance(error, TimeoutError):
            return ConnectionLost(f"{self._peer}: no answer within {STEP_TIMEOUT:g} s")
        return _refused(error, self._peer)


async def _bind(channel: AbstractChannel, binding: Binding) -> None:
    if binding.to_exchange:
        exchange = await channel.get_exchange(binding.destination, ensure=False)
        await exchange.bind(binding.source, binding.key, timeout=STEP_TIMEOUT)
    else:
        queue = await channel.get_queue(binding.destination, ensure=False)
        await queue.bind(binding.source, binding.key, timeout=STEP_TIMEOUT)


def _difference(error: Exception, way: str) -> str:
    """The broker's 406 in plain words: which thing, which argument, both values, and the *way* to change it."""
    words = _words(error)
    match = _INEQUIVALENT.search(words)
    if match is None:
        return words
    wanted, live = (_VALUE.sub(r"'\1'", value) for value in match.group("wanted", "live"))
    return f"{match['thing']} {match['name']}: {match['argument']} is {live} on the broker, wanted is {wanted}; {way}"


def _some(mismatches: Sequence[str]) -> str:
    rest = len(mismatches) - SHOWN
    more = [f"and {rest} more, see `penstock topology plan`"] if rest > 0 else []
    return "; ".join([*mismatches[:SHOWN], *more])


def _not_connected(error: Exception, url: BrokerUrl) -> BrokerError:
    match error:
        case exceptions.ProbableAuthenticationError():
            return _refused(error, url.masked)
        case exceptions.InvalidFrameError():
            # aiormq's way of saying that the broker answered connection.open with connection.close
            return AccessRefused(
                f"{url.masked}: virtual host {url.vhost!r} does not exist, or user {url.user!r} has no access to it"
            )
        case TimeoutError():
            return ConnectionLost(f"{url.masked}: no connection within {CONNECT_TIMEOUT:g} s")
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return (
        unreachable(cause, url.masked)
        if isinstance(cause, OSError)
        else ConnectionLost(f"{url.masked}: {_words(error)}")
    )


def _refused(error: Exception, peer: str) -> BrokerError:
    words = _words(error)
    code = _CODES.get(words.partition(" ")[0])
    return ConnectionLost(f"{peer}: {words}") if code is None else refused(code, words, peer)


def _words(error: Exception) -> str:
    """What the broker or the driver said, on one line."""
    return one_line(next((str(arg) for arg in reversed(error.args) if isinstance(arg, str)), repr(error)))
