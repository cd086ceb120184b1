"""The benchmark's own hands on the broker: empty a queue, count it, and fill it with copies of one job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any  # header values are whatever AMQP carried

import pika
import uvloop
from pika.adapters.asyncio_connection import AsyncioConnection

from penstock.clock import new_job_id

#: How many copies may wait for their confirm at once.
WINDOW = 1000


@dataclass(frozen=True, slots=True)
class Depth:
    """What the broker says of a queue."""

    ready: int
    consumers: int


def server_version(url: str) -> str:
    """The version the broker at *url* says it has."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        properties = connection._impl.server_properties  # no public way to read it in pika
        version = (properties or {})["version"]
    return version.decode() if isinstance(version, bytes) else str(version)


def delete(url: str, queue: str) -> None:
    """Delete *queue* with whatever is in it; a missing one is no error."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(queue)


def purge(url: str, queue: str) -> None:
    """Empty *queue*, which must be there."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_purge(queue)


def depth(url: str, queue: str) -> Depth | None:
    """How many messages and consumers *queue* has, or None when there is no such queue."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        try:
            answer = connection.channel().queue_declare(queue, passive=True).method
        except pika.exceptions.ChannelClosedByBroker:
            return None
        return Depth(answer.message_count, answer.consumer_count)


def multiply(url: str, queue: str, count: int) -> None:
    """Replace the one job in *queue* by *count* copies of it, each with an id of its own wherever the id stood."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        _method, properties, body = channel.basic_get(queue, auto_ack=True)
    if body is None or properties is None:
        raise LookupError(f"no job in {queue} to make copies of")
    uvloop.run(_publish_copies(url, queue, Pattern.of(properties, body), count))


@dataclass(frozen=True, slots=True)
class Pattern:
    """A message and the job id that appears in it, in whatever places its client writes it to."""

    properties: pika.BasicProperties
    body: bytes
    job_id: str

    @classmethod
    def of(cls, properties: pika.BasicProperties, body: bytes) -> Pattern:
        return cls(properties, body, _id_in(properties))

    def copy(self) -> tuple[pika.BasicProperties, bytes]:
        """The message once more, with a fresh id."""
        if not self.job_id:
            return self.properties, self.body
        fresh = new_job_id()
        plain = self.properties
        return (
            pika.BasicProperties(
                content_type=plain.content_type,
                content_encoding=plain.content_encoding,
                headers=_renamed(plain.headers, self.job_id, fresh),
                delivery_mode=2,
                priority=plain.priority,
                correlation_id=_renamed(plain.correlation_id, self.job_id, fresh),
                reply_to=plain.reply_to,
                message_id=_renamed(plain.message_id, self.job_id, fresh),
                timestamp=plain.timestamp,
                type=plain.type,
                app_id=plain.app_id,
            ),
            self.body.replace(self.job_id.encode(), fresh.encode()),
        )


def _id_in(properties: pika.BasicProperties) -> str:
    headers = properties.headers or {}
    return properties.message_id or headers.get("task_id") or headers.get("id") or properties.correlation_id or ""


def _renamed(value: Any, old: str, new: str) -> Any:
    match value:
        case str():
            return value.replace(old, new)
        case dict():
            return {key: _renamed(inner, old, new) for key, inner in value.items()}
        case list():
            return [_renamed(inner, old, new) for inner in value]
        case _:
            return value


async def _publish_copies(url: str, queue: str, pattern: Pattern, count: int) -> None:
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Any] = loop.create_future()
    connection = AsyncioConnection(pika.URLParameters(url), on_open_callback=opened.set_result)
    await opened
    channel_open: asyncio.Future[Any] = loop.create_future()
    connection.channel(on_open_callback=channel_open.set_result)
    channel = await channel_open
    progress = asyncio.Event()
    confirmed = 0

    def on_confirm(frame: Any) -> None:
        nonlocal confirmed
        confirmed = max(confirmed, frame.method.delivery_tag)
        progress.set()

    channel.confirm_delivery(on_confirm)
    sent = 0
    while confirmed < count:
        while sent < count and sent - confirmed < WINDOW:
            properties, body = pattern.copy()
            channel.basic_publish("", queue, body, properties, mandatory=True)
            sent += 1
        progress.clear()
        await progress.wait()
    closed: asyncio.Future[None] = loop.create_future()
    connection.add_on_close_callback(lambda *_: closed.set_result(None))
    connection.close()
    await closed
