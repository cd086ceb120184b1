"""RabbitMQ as a subject of the conformance tests."""

from __future__ import annotations

import aio_pika

from penstock.brokers.pika_driver import PikaBroker
from penstock.ports import Broker, Link
from penstock.topology.model import Topology


class PikaSubject:
    """RabbitMQ by the pika driver, set up from outside by aio-pika. Closes every link that a test leaves open."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._driver = PikaBroker(url)
        self._links: list[Link] = []

    @property
    def broker(self) -> Broker:
        """The driver, watched for the links it opens."""
        return self

    async def connect(self, name: str) -> Link:
        """Open a link."""
        self._links.append(await self._driver.connect(name))
        return self._links[-1]

    async def close(self) -> None:
        """Close every link."""
        for link in self._links:
            await link.close()

    async def declare(self, topology: Topology) -> None:
        """Declare *topology*."""
        async with await aio_pika.connect(self._url) as connection, connection.channel() as channel:
            exchanges = {
                part.name: await channel.declare_exchange(
                    part.name, part.type, durable=True, internal=part.internal, arguments=dict(part.arguments)
                )
                for part in topology.exchanges
            }
            queues = {
                part.name: await channel.declare_queue(part.name, durable=True, arguments=dict(part.arguments))
                for part in topology.queues
            }
            for binding in topology.bindings:
                ends = exchanges if binding.to_exchange else queues
                await ends[binding.destination].bind(binding.source, binding.key)

    async def delete_queue(self, name: str) -> None:
        """Delete queue *name*."""
        async with await aio_pika.connect(self._url) as connection, connection.channel() as channel:
            await channel.queue_delete(name)
