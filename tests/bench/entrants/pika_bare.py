"""Pika alone: what the driver under Penstock does when nothing is around it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pika
import uvloop
from pika.adapters.asyncio_connection import AsyncioConnection

from tests.bench.entrants.common import (
    LIMIT,
    PREFETCH,
    WINDOW,
    Figures,
    Latencies,
    Tally,
    arguments,
    broker_url,
    compact,
    in_threads,
    paced,
    run_role,
    timed,
    timed_async,
)

QUEUE = EXCHANGE = "bench.pika"
KEY = "bench.note"
#: The work that the broker has with a job of ours: a topic exchange and a queue with the arguments of a work queue.
#: Published to the default exchange instead, RabbitMQ takes a quarter (3.10) more messages a second.
WORK_QUEUE = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": "jobs.dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 20,
}
BODY = compact(arguments())
PROPERTIES = pika.BasicProperties(delivery_mode=2, content_type="application/json", message_id="x" * 36)


class Wire:
    """One connection and channel on the running loop, with confirms counted."""

    def __init__(self, connection: AsyncioConnection, channel: Any) -> None:
        self.connection = connection
        self.channel = channel
        self.sent = 0
        self.confirmed = 0
        self._progress = asyncio.Event()

    @classmethod
    async def open(cls) -> Wire:
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[AsyncioConnection] = loop.create_future()
        AsyncioConnection(
            pika.URLParameters(broker_url()),
            on_open_callback=opened.set_result,
            on_open_error_callback=lambda _, error: opened.set_exception(error),
        )
        connection = await opened
        channel = await _answer(lambda done: connection.channel(on_open_callback=done))
        await _answer(lambda done: channel.exchange_declare(EXCHANGE, "topic", durable=True, callback=done))
        await _answer(lambda done: channel.queue_declare(QUEUE, durable=True, arguments=WORK_QUEUE, callback=done))
        await _answer(lambda done: channel.queue_bind(QUEUE, EXCHANGE, "bench.*", callback=done))
        return cls(connection, channel)

    async def confirm(self) -> None:
        await _answer(lambda done: self.channel.confirm_delivery(self._on_confirm, callback=done))

    def _on_confirm(self, frame: Any) -> None:
        self.confirmed = max(self.confirmed, frame.method.delivery_tag)
        self._progress.set()

    def publish(self, body: bytes = BODY) -> None:
        self.channel.basic_publish(EXCHANGE, KEY, body, PROPERTIES, mandatory=True)
        self.sent += 1

    async def publish_window(self, count: int) -> None:
        while self.confirmed < count:
            while self.sent < count and self.sent - self.confirmed < WINDOW:
                self.publish()
            self._progress.clear()
            await self._progress.wait()

    async def consume(self, on_message: Callable[..., None]) -> None:
        await _answer(lambda done: self.channel.basic_qos(prefetch_count=PREFETCH, callback=done))
        await _answer(lambda done: self.channel.basic_consume(QUEUE, on_message, callback=done))

    async def close(self) -> None:
        closed = asyncio.get_running_loop().create_future()
        self.connection.add_on_close_callback(lambda *_: closed.set_result(None))
        self.connection.close()
        await closed


async def _answer(call: Callable[[Callable[[Any], None]], object]) -> Any:
    answered = asyncio.get_running_loop().create_future()
    call(answered.set_result)
    return await answered


def publish_async(count: int) -> Figures:
    """Pipelined confirms on an event loop."""

    async def main() -> Figures:
        wire = await Wire.open()
        await wire.confirm()
        figures = await timed_async(count, wire.publish_window(count))
        await wire.close()
        return figures

    return uvloop.run(main())


class Blocking:
    """A BlockingConnection of this thread, in confirm mode."""

    def __init__(self) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(broker_url()))
        self._channel = self._connection.channel()
        self._channel.exchange_declare(EXCHANGE, "topic", durable=True)
        self._channel.queue_declare(QUEUE, durable=True, arguments=WORK_QUEUE)
        self._channel.queue_bind(QUEUE, EXCHANGE, "bench.*")
        self._channel.confirm_delivery()

    def publish(self) -> None:
        self._channel.basic_publish(EXCHANGE, KEY, BODY, PROPERTIES, mandatory=True)

    def close(self) -> None:
        self._connection.close()


def publish_1_thread(count: int) -> Figures:
    """A BlockingConnection, each publish confirmed before the next."""
    blocking = Blocking()

    def publish_all() -> None:
        for _ in range(count):
            blocking.publish()

    figures = timed(count, publish_all)
    blocking.close()
    return figures


def publish_16_threads(count: int) -> Figures:
    """Sixteen threads, each with a BlockingConnection of its own, for it must not be shared."""
    mine = threading.local()

    def publish() -> None:
        if not hasattr(mine, "blocking"):
            mine.blocking = Blocking()
        mine.blocking.publish()

    return in_threads(16, count, publish)


def work_async(count: int) -> Figures:
    """A task and an ack per job, and nothing else."""

    async def main() -> Figures:
        last = asyncio.Event()
        tally = Tally(count, last.set)
        wire = await Wire.open()
        tasks: set[asyncio.Task[None]] = set()

        async def run(tag: int) -> None:
            tally.tick()
            wire.channel.basic_ack(tag)

        def on_message(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
            task = asyncio.create_task(run(method.delivery_tag))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await wire.consume(on_message)
        await asyncio.wait_for(last.wait(), LIMIT)
        await asyncio.gather(*tasks)
        await wire.close()
        return tally.figures()

    return uvloop.run(main())


def latency_worker(count: int) -> Figures:
    """Note when each job arrives."""

    async def main() -> Figures:
        last = asyncio.Event()
        latencies = Latencies(count, last.set)
        wire = await Wire.open()

        def on_message(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
            latencies.arrived(json.loads(body)["sent"])
            channel.basic_ack(method.delivery_tag)

        await wire.consume(on_message)
        await asyncio.wait_for(last.wait(), LIMIT)
        await wire.close()
        return latencies.figures()

    return uvloop.run(main())


def latency_publisher(count: int) -> Figures:
    """Publish at the pace of the measure."""

    async def main() -> Figures:
        wire = await Wire.open()
        await wire.confirm()

        async def publish(args: dict[str, Any]) -> None:
            wire.publish(compact(args))

        await paced(count, publish)
        await wire.publish_window(count)
        await wire.close()
        return {}

    return uvloop.run(main())


def seed(_count: int) -> Figures:
    """Declare the queue and publish one job into it."""
    blocking = Blocking()
    blocking.publish()
    blocking.close()
    return {}


ROLES = {
    "seed": seed,
    "publish_async": publish_async,
    "publish_many": publish_async,
    "publish_1_thread": publish_1_thread,
    "publish_16_threads": publish_16_threads,
    "work_async": work_async,
    "latency_worker": latency_worker,
    "latency_publisher": latency_publisher,
}

if __name__ == "__main__":
    run_role(ROLES)
