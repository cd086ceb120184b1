"""A worker that runs inside a test, and a foreign client (aio-pika) that publishes to it and reads what it left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any  # options of any type are handed through

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from penstock import Event, Handlers, Worker
from penstock.claiming import StoreTerms
from penstock.connect import broker_for
from penstock.delay import level_queue
from penstock.events import ConsumingStarted, JobFinished
from penstock.storing import Store
from penstock.topology.build import build
from penstock.topology.model import Topology
from penstock.topology.reading import parse_spec
from tests.support.waiting import eventually

PATIENCE = 40.0

#: The levels of the cascade in which a test could leave something for the next to meet: up to half an hour.
LEVELS = tuple(level_queue(level) for level in range(12))


async def declare(url: str, topology: str | Topology = "queues: {email: [email.*]}") -> None:
    """Declare *topology* (or the YAML of one) from outside."""
    wanted = build(parse_spec(topology)) if isinstance(topology, str) else topology
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for exchange in wanted.exchanges:
            arguments = dict(exchange.arguments)
            await channel.declare_exchange(
                exchange.name, exchange.type, durable=True, internal=exchange.internal, arguments=arguments
            )
        for queue in wanted.queues:
            await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in wanted.bindings:
            source = await channel.get_exchange(binding.source, ensure=False)
            if binding.to_exchange:
                target = await channel.get_exchange(binding.destination, ensure=False)
                await target.bind(source, binding.key)
            else:
                await (await channel.get_queue(binding.destination, ensure=False)).bind(source, binding.key)


class Watched:
    """What a worker did so far, and a way to wait for more."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.events: list[Event] = []
        self._fresh = asyncio.Condition()
        worker.events.subscribe(self._saw)

    def _saw(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        """The events of one type so far."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def finished(self) -> list[JobFinished]:
        """Every judged delivery so far."""
        return self.of(JobFinished)

    async def until(self, kind: type, count: int = 1, within: float = PATIENCE) -> list[Any]:
        """Wait until *count* events of *kind* were seen."""
        async with asyncio.timeout(within):
            while len(self.of(kind)) < count:  # noqa: ASYNC110 - events come from a callback in this very loop
                await asyncio.sleep(0.01)
        return self.of(kind)


@asynccontextmanager
async def working(
    url: str,
    handlers: Handlers,
    *,
    factory: str | None = None,
    store: Store | None = None,
    terms: StoreTerms | None = None,
    **options: Any,
) -> AsyncIterator[Watched]:
    """A running worker for queue ``email`` unless *options* say otherwise; it must drain cleanly at the end."""
    worker = Worker(handlers, **({"queue": "email"} | options))
    watched, stop = Watched(worker), asyncio.Event()
    running = asyncio.create_task(worker.run(broker_for(url), stop=stop, factory=factory, store=store, terms=terms))
    started = asyncio.create_task(watched.until(ConsumingStarted))
    await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    await started
    try:
        yield watched
    except BaseException:
        running.cancel()
        await asyncio.wait([running])
        raise
    stop.set()
    assert await running, "the worker left jobs unfinished"


@asynccontextmanager
async def foreign(url: str) -> AsyncIterator[AbstractChannel]:
    """A channel of aio-pika, with confirms and loud returns."""
    async with await aio_pika.connect(url) as connection:
        yield await connection.channel(on_return_raises=True)


async def put(channel: AbstractChannel, key: str, body: bytes, exchange: str = "jobs", **properties: Any) -> None:
    """Publish as a foreign producer would."""
    target = await channel.get_exchange(exchange, ensure=False)
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, **properties)
    await target.publish(message, routing_key=key, mandatory=True, timeout=10)


async def take(channel: AbstractChannel, queue: str, within: float = PATIENCE) -> AbstractIncomingMessage:
    """Take the next message of *queue*, waiting for one."""
    source = await channel.get_queue(queue, ensure=False)
    async with asyncio.timeout(within):
        while True:
            message = await source.get(fail=False, timeout=within)
            if message is not None:
                await message.ack()
                return message
            await asyncio.sleep(0.02)


async def empty(url: str, *queues: str) -> None:
    """Throw away what waits in *queues*."""
    async with foreign(url) as channel:
        for name in queues:
            await (await channel.get_queue(name, ensure=False)).purge()


async def at_rest(url: str, *queues: str) -> None:
    """As ``empty``, once nobody consumes them: what a worker held that was killed is given back before."""
    async with foreign(url) as channel:

        async def are_left() -> bool:
            told = [(await channel.declare_queue(name, passive=True)).declaration_result for name in queues]
            return not any(each.consumer_count for each in told)

        await eventually(are_left)
    await empty(url, *queues)


async def take_all(channel: AbstractChannel, queue: str) -> list[AbstractIncomingMessage]:
    """Take everything that waits in *queue* now."""
    source = await channel.get_queue(queue, ensure=False)
    taken: list[AbstractIncomingMessage] = []

    async def keep(message: AbstractIncomingMessage) -> None:
        taken.append(message)

    while waiting := await _waiting(channel, queue):
        wanted = len(taken) + waiting
        tag = await source.consume(keep, no_ack=True)
        async with asyncio.timeout(PATIENCE):
            while len(taken) < wanted:  # noqa: ASYNC110 - deliveries come from a callback in this very loop
                await asyncio.sleep(0.01)
        await source.cancel(tag)
    return taken


async def depth(url: str, queue: str) -> int:
    """How many messages of *queue* are ready."""
    async with foreign(url) as channel:
        return await _waiting(channel, queue)


async def _waiting(channel: AbstractChannel, queue: str) -> int:
    """See ``PikaLink.depth`` on why nothing is asked for twice."""
    for _ in range(2):
        if count := (await channel.declare_queue(queue, passive=True)).declaration_result.message_count:
            return count
    return 0
