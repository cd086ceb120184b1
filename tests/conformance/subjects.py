"""The brokers that the conformance tests are run against."""

from __future__ import annotations

from typing import Protocol

from penstock.brokers.memory import MemoryBroker
from penstock.ports import Broker
from penstock.topology.model import Topology


class LinkBroker(Protocol):
    """A broker under test, with what a test needs besides: a way to set it up and to pull a queue from under it."""

    @property
    def broker(self) -> Broker:
        """The driver under test."""
        ...

    async def declare(self, topology: Topology) -> None:
        """Declare *topology* from outside."""
        ...

    async def delete_queue(self, name: str) -> None:
        """Delete queue *name* from outside, whatever it holds and whoever consumes it."""
        ...


class MemorySubject:
    """The broker in memory, on the machine's clock."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    async def declare(self, topology: Topology) -> None:
        """Declare *topology*."""
        await self.broker.declare(topology)

    async def delete_queue(self, name: str) -> None:
        """Delete queue *name*."""
        self.broker.delete_queue(name)
