"""Connections to the memory broker: what publishes into it and what consumes from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import replace
from itertools import count

from penstock.brokers.memory_node import MemoryNode
from penstock.brokers.memory_queue import Activity, MemoryQueue, Stored
from penstock.brokers.tables import decode_table, encode_short, encode_table
from penstock.errors import AccessRefused, BrokerError, ConfigError, ConnectionLost, TopologyMismatch, Unconfirmed
from penstock.message import Delivery, Message
from penstock.ports import OnDelivery


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

    def on_blocked(self, tell: Callable[[str | None], None]) -> None:
        """Never calls *tell*."""

    async def outlet(self) -> MemoryOutlet:
        """Open a channel to publish through. Raises ``ConnectionLost`` after ``close``."""
        self._check()
        outlet = MemoryOutlet(self._node)
        self._channels.append(outlet)
        return outlet

    async def consume(
        self,
        queue: str,
        prefetch: int,
        on_delivery: OnDelivery,
        tag: str,
        *,
        slots: int | None = None,  # noqa: ARG002 - nobody looks
    ) -> MemorySubscription:
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
            _fail(answer, refusal)
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
        if refusal is not None:
            _fail(answer, refusal)
        elif not answer.done():
            answer.set_result(None)

    def _end(self, reason: BrokerError) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        for answer in self._pending:
            _fail(answer, ConnectionLost(str(reason)))
        self._pending.clear()


class MemorySubscription:
    """One consumer of a queue, on a channel of its own."""

    def __init__(
        self, queue: MemoryQueue, activity: Activity, prefetch: int, on_delivery: OnDelivery, tag: str
    ) -> None:
        self.tag = tag
        self.ended: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self.cancelled = False
        self.on_acks: Callable[[int], None] | None = None
        self._queue = queue
        self._activity = activity
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        #: By the delivery itself: those of other channels have the same tags.
        self._unacked: dict[Delivery, Stored] = {}
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
        delivery = _delivery(stored, self._queue.declared.name, next(self._tags))
        self._unacked[delivery] = stored
        self._activity.begin()
        self._on_delivery(delivery)

    def ack(self, delivery: Delivery) -> None:
        """Answer that the job is finished or replaced: the queue forgets the message."""
        if self._settle(delivery):
            if self.on_acks is not None:
                self.on_acks(1)
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
            self._queue.put_back_lost(stored)

    def end(self, reason: BrokerError) -> Collection[Stored]:
        """Take note that nothing more can be settled here; return what was unsettled."""
        self.cancelled = True
        unsettled = tuple(self._unacked.values())
        for _ in unsettled:
            self._activity.end()
        self._unacked.clear()
        if not self.ended.done():
            self.ended.set_result(reason)
        return unsettled

    def _settle(self, delivery: Delivery) -> Stored | None:
        stored = self._unacked.pop(delivery, None)
        if stored is not None:
            self._activity.end()
        return stored


def _fail(answer: asyncio.Future[None], error: BrokerError) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # a caller who dropped the future wants no warning about it


def _delivery(stored: Stored, queue: str, tag: int) -> Delivery:
    headers = deepcopy(stored.message.headers)
    if stored.failures:
        headers["x-delivery-count"] = stored.failures
    message = replace(stored.message, headers=headers)
    return Delivery(message, queue, stored.exchange, stored.key, tag, stored.redelivered, stored.failures)
