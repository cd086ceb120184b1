"""A broker in memory: routing, confirms, prefetch, returns, time to live and dead-lettering as RabbitMQ does them.

It obeys the same ``Topology`` value as a real broker, for tests that need no network. It knows no priorities, policies,
permissions, length limits, alarms, single active consumers or network faults, and refuses arguments it would have to
ignore. Every rule is held against a real broker by the conformance tests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from penstock.brokers.memory_link import MemoryLink
from penstock.brokers.memory_node import MemoryNode
from penstock.brokers.memory_queue import MemoryQueue
from penstock.brokers.timers import LoopTimers, Timers
from penstock.errors import TopologyMismatch
from penstock.message import Message
from penstock.topology.model import Exchange, Queue, Topology

#: How many turns of the loop nothing may be on its way before the broker calls itself quiet: whoever waits for an
#: answer needs a few to act on it.
QUIET_TURNS = 10


class MemoryBroker:
    """A ``Broker`` and ``Admin`` over messages in memory. Use it from one event loop."""

    def __init__(self, topology: Topology | None = None, timers: Timers | None = None) -> None:
        self._node = MemoryNode(timers or LoopTimers())
        self._node.timers.join(self.quiet)
        self._node.declare(topology or Topology())

    async def connect(self, name: str) -> MemoryLink:
        """Open a connection called *name*."""
        return MemoryLink(self._node, name)

    async def declare(self, topology: Topology) -> None:
        """Declare everything in *topology*, idempotently.

        Raises ``TopologyMismatch`` naming what differs, ``ConfigError`` for what this broker does not know.
        """
        self._node.declare(topology)

    async def delete(self, exchanges: Sequence[Exchange], queues: Sequence[Queue]) -> None:
        """Delete exchanges, and queues that are empty and unused; what does not exist is no error."""
        busy = [queue.name for queue in queues if queue.name in self._node.queues and self._queue(queue.name).in_use]
        if busy:
            raise TopologyMismatch(f"not deleted, because not empty or still consumed: {', '.join(busy)}")
        for queue in queues:
            self._node.delete_queue(queue.name)
        for exchange in exchanges:
            self._node.delete_exchange(exchange.name)

    async def close(self) -> None:
        """Nothing to close: the broker lives as long as something refers to it."""

    def delete_queue(self, name: str) -> None:
        """Delete queue *name* with what it holds and cancel its consumers, as an operator can."""
        self._node.delete_queue(name)

    @property
    def queue_names(self) -> tuple[str, ...]:
        """Every queue there is, in the order of their declaration."""
        return tuple(self._node.queues)

    def ready(self, queue: str) -> tuple[Message, ...]:
        """What waits in *queue* to be delivered, in order; for reading only."""
        return tuple(stored.message for stored in self._queue(queue).ready)

    def unacked(self, queue: str) -> tuple[Message, ...]:
        """What of *queue* is delivered and not settled; for reading only."""
        return tuple(stored.message for stored in self._queue(queue).unacked)

    def held(self, queue: str) -> tuple[Message, ...]:
        """The unroutable dead letters of *queue*: with at-least-once they stay there, seen by no consumer."""
        return tuple(stored.message for stored in self._queue(queue).held)

    @property
    def dropped(self) -> Counter[tuple[str, str]]:
        """How many messages a rule of the broker let go of, by queue and rule."""
        return self._node.dropped.copy()

    async def quiet(self, patience: timedelta = timedelta(seconds=5)) -> None:
        """Wait until every publish is answered, all that can be delivered is delivered, and all delivered is settled.

        Raises ``TimeoutError`` naming the unsettled deliveries when that takes longer than *patience* (real time).
        """
        try:
            async with asyncio.timeout(patience.total_seconds()):
                await self._calm()
        except TimeoutError:
            raise TimeoutError(f"not settled within {patience.total_seconds():g} s: {self._unsettled()}") from None

    async def _calm(self) -> None:
        turns = 0
        while turns < QUIET_TURNS:
            await self._node.activity.wait()
            await asyncio.sleep(0)
            turns = turns + 1 if self._node.activity.over else 0

    def _unsettled(self) -> str:
        held = Counter(
            f"{name} ({stored.key})" for name, queue in self._node.queues.items() for stored in queue.unacked
        )
        return ", ".join(f"{number} of {what}" for what, number in held.items()) or "a publish without an answer"

    def _queue(self, name: str) -> MemoryQueue:
        return self._node.queue(name)
