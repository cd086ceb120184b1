"""A broker in memory: routing, confirms, prefetch, returns, time to live and dead-lettering as RabbitMQ does them.

It obeys the same ``Topology`` value as a real broker, for tests that need no network. It knows no priorities, policies,
permissions, length limits, alarms, single active consumers or network faults, and refuses arguments it would have to
ignore. Every rule is held against a real broker by the conformance tests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from itertools import count

from penstock.brokers.memory_node import MemoryNode
from penstock.brokers.memory_queue import Activity, MemoryQueue, Stored
from penstock.brokers.tables import decode_table, encode_short, encode_table
from penstock.brokers.timers import LoopTimers, Timers
from penstock.errors import AccessRefused, BrokerError, ConfigError, ConnectionLost, TopologyMismatch, Unconfirmed
from penstock.message import Delivery, Message
from penstock.ports import OnDelivery
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


class MemoryLink:
    """A connection to the memory broker."""

    def __init__(self, node: MemoryNode, name: str) -> None:
        self.name = name
        self.lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._node = node
        self._channels: list[MemoryOutlet | MemorySubscription] = []

    @property
    def blocked(self) -> bool:
        """Never: this broker raises no alarms."""
        return False

    async def outlet(self) -> MemoryOutlet:
        """Open a channel to publish through. Raises ``ConnectionLost`` after ``close``."""
        self._check()
        outlet = MemoryOutlet(self._node)
        self._channels.append(outlet)
        return outlet

    async def consume(self, queue: str, prefetch: int, on_delivery: OnDelivery, tag: str) -> MemorySubscription:
        """Consume *queue*. Raises ``TopologyMismatch`` when it is missing, ``ConnectionLost`` after ``close``."""
        source = self._find(queue)
        if source.declared.arguments.get("x-single-active-consumer"):
            raise ConfigError(f"queue '{queue}': the memory broker knows no single active consumers")
        subscription = MemorySubscription(source, self._node.activity, prefetch, on_delivery, tag)
        self._channels.append(subscription)
        return subscription

    async def depth(self, queue: str) -> int:
        """How many messages of *queue* are ready. Raises as ``consume`` does."""
        return len(self._find(queue).ready)

    async def close(self) -> None:
        """Close the connection: outlets and subscriptions end, what is unsettled goes back. Idempotent."""
        for channel in self._channels:
            await channel.close()
        self._channels.clear()
        if not self.lost.done():
            self.lost.set_result(ConnectionLost("the connection was closed"))

    def _find(self, queue: str) -> MemoryQueue:
        self._check()
        return self._node.queue(queue)

    def _check(self) -> None:
        if self.lost.done():
            raise ConnectionLost("the connection was closed")


class MemoryOutlet:
    """A channel in confirm mode. Answers come in a later turn of the loop, in the order of the publishes."""

    def __init__(self, node: MemoryNode) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[BrokerError] = self._loop.create_future()
        self._node = node
        self._pending: dict[asyncio.Future[None], None] = {}

    @property
    def pending(self) -> int:
        """How many publishes wait for their answer."""
        return len(self._pending)

    def publish(self, message: Message, exchange: str, key: str, deadline: float) -> asyncio.Future[None]:
        """Send *message* and return a future that is done once the broker has answered; see ``Outlet.publish``."""
        answer: asyncio.Future[None] = self._loop.create_future()
        try:
            sent = self._over_the_wire(message, exchange, key, deadline)
        except BrokerError as refusal:
            answer.set_exception(refusal)
            return answer
        self._pending[answer] = None
        self._node.activity.begin()
        self._loop.call_soon(self._arrive, answer, sent, exchange, key)
        return answer

    async def close(self) -> None:
        """Close the channel; pending publishes raise ``ConnectionLost``. Idempotent."""
        self._end(ConnectionLost("the channel was closed"))

    def _over_the_wire(self, message: Message, exchange: str, key: str, deadline: float) -> Message:
        """What arrives at the other end. Raises when nothing can: what a real broker's wire refuses is refused here."""
        if self.lost.done():
            raise ConnectionLost("the channel was closed")
        if self._loop.time() >= deadline:
            raise Unconfirmed(f"the deadline for '{key}' had passed before it could be sent")
        encode_short(exchange, "the exchange")
        encode_short(key, "the routing key")
        encoded = encode_table(message.headers)
        return replace(message, headers=decode_table(encoded, 0, len(encoded)))

    def _arrive(self, answer: asyncio.Future[None], message: Message, exchange: str, key: str) -> None:
        self._node.activity.end()
        if self._pending.pop(answer, False) is False:
            return
        refusal = self._node.accept(message, exchange, key)
        if isinstance(refusal, (AccessRefused, TopologyMismatch)):
            self._end(refusal)
        if not answer.done():
            answer.set_exception(refusal) if refusal else answer.set_result(None)

    def _end(self, reason: BrokerError) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        for answer in self._pending:
            if not answer.done():
                answer.set_exception(ConnectionLost(str(reason)))
        self._pending.clear()


class MemorySubscription:
    """One consumer of a queue, on a channel of its own."""

    def __init__(
        self, queue: MemoryQueue, activity: Activity, prefetch: int, on_delivery: OnDelivery, tag: str
    ) -> None:
        self.tag = tag
        self.ended: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self.cancelled = False
        self._queue = queue
        self._activity = activity
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._unacked: dict[int, Stored] = {}
        self._handed: dict[int, Delivery] = {}  # by tag as well: deliveries of other channels have the same tags
        self._tags = count(1)
        queue.consumers.append(self)
        queue.stir()

    @property
    def has_room(self) -> bool:
        """Whether the prefetch leaves room for one more."""
        return not self.cancelled and len(self._unacked) < self._prefetch

    @property
    def unacked(self) -> Collection[Stored]:
        """What was handed over and is not settled."""
        return self._unacked.values()

    def hand_over(self, stored: Stored) -> None:
        """Deliver one message."""
        tag = next(self._tags)
        self._unacked[tag] = stored
        self._handed[tag] = _delivery(stored, self._queue.declared.name, tag)
        self._activity.begin()
        self._on_delivery(self._handed[tag])

    def ack(self, delivery: Delivery) -> None:
        """Answer that the job is finished or replaced: the queue forgets the message."""
        if self._settle(delivery):
            self._queue.stir()

    def release(self, delivery: Delivery) -> None:
        """Give the delivery back to the queue."""
        if stored := self._settle(delivery):
            self._queue.put_back(stored)

    def reject(self, delivery: Delivery) -> None:
        """Let the broker dead-letter the delivery."""
        if stored := self._settle(delivery):
            self._queue.reject(stored)

    async def widen(self, prefetch: int) -> None:
        """Consume with another *prefetch* from now on."""
        self._prefetch = prefetch
        self._queue.stir()

    async def cancel(self) -> None:
        """Stop new deliveries; what was delivered can still be settled."""
        self.cancelled = True

    async def close(self) -> None:
        """Close the channel; what is unsettled goes back to the queue. Idempotent."""
        unsettled = self.end(ConnectionLost("the channel was closed"))
        if self in self._queue.consumers:
            self._queue.consumers.remove(self)
        for stored in unsettled:
            self._queue.put_back(stored)

    def end(self, reason: BrokerError) -> Collection[Stored]:
        """Take note that nothing more can be settled here; return what was unsettled."""
        self.cancelled = True
        unsettled = tuple(self._unacked.values())
        for _ in unsettled:
            self._activity.end()
        self._unacked.clear()
        self._handed.clear()
        if not self.ended.done():
            self.ended.set_result(reason)
        return unsettled

    def _settle(self, delivery: Delivery) -> Stored | None:
        if self._handed.get(delivery.tag) is not delivery:
            return None
        del self._handed[delivery.tag]
        self._activity.end()
        return self._unacked.pop(delivery.tag)


def _delivery(stored: Stored, queue: str, tag: int) -> Delivery:
    headers = deepcopy(stored.message.headers)
    if stored.returns:
        headers["x-delivery-count"] = stored.returns
    message = replace(stored.message, headers=headers)
    redelivered = stored.returns > 0
    return Delivery(message, queue, stored.exchange, stored.key, tag, redelivered, deliveries=stored.returns)
