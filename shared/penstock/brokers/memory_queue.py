"""One queue of the memory broker: what waits in it, who consumes it, and when a message may not stay."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from penstock.brokers.deaths import DELIVERY_LIMIT, EXPIRED, REJECTED
from penstock.brokers.timers import Timers
from penstock.errors import BrokerError
from penstock.message import Message
from penstock.topology.model import Queue


class Activity:
    """Counts what is on its way, so that others can wait until nothing is."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def over(self) -> bool:
        """Whether nothing is on its way."""
        return self._count == 0

    def begin(self) -> None:
        """One more is on its way."""
        self._count += 1

    def end(self) -> None:
        """One less is on its way."""
        self._count -= 1
        while self.over and self._waiting:
            waiting = self._waiting.pop()
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self) -> None:
        """Wait until nothing is on its way."""
        while not self.over:
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]


@dataclass(slots=True, eq=False)
class Stored:
    """A message in one queue. The message itself is shared between queues and never changed."""

    message: Message
    exchange: str
    key: str
    due_ms: int | None = None
    redelivered: bool = False
    #: Hand-overs that ended with the consumer's channel.
    failures: int = 0


class Consumer(Protocol):
    """Who takes messages from a queue."""

    @property
    def has_room(self) -> bool:
        """Whether the prefetch leaves room for one more."""
        ...

    @property
    def unacked(self) -> Collection[Stored]:
        """What was handed over and is not settled."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether no more may be handed over, for good."""
        ...

    def hand_over(self, stored: Stored) -> None:
        """Take one message; the queue has forgotten it."""
        ...

    def end(self, reason: BrokerError) -> Collection[Stored]:
        """Learn that nothing more can be settled; return what was unsettled."""
        ...


#: Called with a message that may not stay in the queue, and the broker's word for why.
Bury = Callable[["MemoryQueue", Stored, str], None]


class MemoryQueue:
    """Messages in order, the returned ones first, as a quorum queue with a delivery limit keeps them."""

    def __init__(self, queue: Queue, timers: Timers, activity: Activity, bury: Bury) -> None:
        self.declared = queue
        self.consumers: deque[Consumer] = deque()
        #: Unroutable dead letters: at-least-once keeps them, neither ready nor unacked.
        self.held: list[Stored] = []
        self._ttl: int | None = queue.arguments.get("x-message-ttl")
        self._limit: int | None = queue.arguments.get("x-delivery-limit")
        self._timers = timers
        self._activity = activity
        self._bury = bury
        self._returned: deque[Stored] = deque()
        self._fresh: deque[Stored] = deque()
        self._waking = False
        self._dispatching = False

    @property
    def ready(self) -> tuple[Stored, ...]:
        """What waits to be delivered, in order."""
        return (*self._returned, *self._fresh)

    @property
    def unacked(self) -> tuple[Stored, ...]:
        """What is delivered and not settled."""
        return tuple(stored for consumer in self.consumers for stored in consumer.unacked)

    @property
    def in_use(self) -> bool:
        """Whether there is a message in the queue or a consumer on it."""
        consumed = any(not consumer.cancelled for consumer in self.consumers)
        return bool(consumed or self.ready or self.unacked or self.held)

    def put(self, stored: Stored) -> None:
        """Take a message at the end of the queue; its time to live starts now."""
        if self._ttl is not None:
            stored.due_ms = self._timers.now_ms() + self._ttl
        self._fresh.append(stored)
        self.stir()

    def put_back(self, stored: Stored) -> None:
        """Take a delivered message back, before those that were never delivered."""
        stored.redelivered = True
        self._returned.append(stored)
        self.stir()

    def put_back_lost(self, stored: Stored) -> None:
        """Take back a message whose consumer is gone, unless that happened too often.

        Only this counts against the limit: what a consumer gives back counts up to RabbitMQ 4.2, but not from 4.3 on.
        """
        stored.failures += 1
        if self._limit is not None and stored.failures > self._limit:
            self._bury(self, stored, DELIVERY_LIMIT)
            self.stir()
        else:
            self.put_back(stored)

    def reject(self, stored: Stored) -> None:
        """Let go of a delivered message that the consumer does not want to see again."""
        self._bury(self, stored, REJECTED)
        self.stir()

    def close(self, reason: BrokerError) -> int:
        """Cancel the consumers and forget everything; return how many messages that were."""
        lost = len(self.ready) + len(self.held) + sum(len(consumer.end(reason)) for consumer in self.consumers)
        for kept in (self._returned, self._fresh, self.held, self.consumers):
            kept.clear()
        return lost

    def stir(self) -> None:
        """Look again at what is due and who has room. Deliveries are made in a later turn of the loop."""
        self._expire()
        if self._head is not None and not self._dispatching and any(consumer.has_room for consumer in self.consumers):
            self._dispatching = True
            self._activity.begin()
            asyncio.get_running_loop().call_soon(self._dispatch)

    @property
    def _head(self) -> Stored | None:
        return self._returned[0] if self._returned else self._fresh[0] if self._fresh else None

    def _pop(self) -> Stored:
        return self._returned.popleft() if self._returned else self._fresh.popleft()

    def _dispatch(self) -> None:
        self._dispatching = False
        self._expire()
        for _ in range(len(self._returned) + len(self._fresh)):
            consumer = self._next_consumer()
            if consumer is None or self._head is None:
                break
            consumer.hand_over(self._pop())
        self.stir()
        self._activity.end()

    def _next_consumer(self) -> Consumer | None:
        """Whose turn it is among those with room."""
        for _ in range(len(self.consumers)):
            self.consumers.rotate(-1)
            if self.consumers[-1].has_room:
                return self.consumers[-1]
        return None

    def _expire(self) -> None:
        """Let go of what is due at the head: RabbitMQ looks nowhere else (https://www.rabbitmq.com/docs/ttl)."""
        now = self._timers.now_ms()
        while (head := self._head) is not None and head.due_ms is not None and head.due_ms <= now:
            self._bury(self, self._pop(), EXPIRED)
        # One time to live for all: an earlier message than the one waited for has passed, or is out for delivery.
        if head is not None and head.due_ms is not None and not self._waking:
            self._waking = True
            self._timers.call_at(head.due_ms, self._woken)

    def _woken(self) -> None:
        self._waking = False
        self.stir()
