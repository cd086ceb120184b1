"""What the library asks of a broker driver: connections that publish and consume, and a way to declare."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.errors import BrokerError
from penstock.message import Delivery, Message
from penstock.topology.model import Exchange, Queue, Topology

OnDelivery = Callable[[Delivery], None]


class Outlet(Protocol):
    """A channel in confirm mode. Dies once; use it from its event loop only."""

    #: Done (with the reason) when the channel or its connection is gone. Never raises.
    lost: asyncio.Future[BrokerError]

    def publish(self, message: Message, exchange: str, key: str, deadline: float) -> asyncio.Future[None]:
        """Send *message*, persistent and mandatory, and return a future that is done once the broker has answered.

        *deadline* is event-loop time. The future raises ``Unroutable`` (returned), ``Nacked`` (refused), ``TooLarge``,
        ``AccessRefused`` or ``TopologyMismatch`` when the broker refused this very message; ``Unconfirmed`` when no
        answer came by the deadline; ``ConnectionLost`` when channel or connection died first. After the last two the
        outcome is unknown. ``AccessRefused`` and ``TopologyMismatch`` also end the outlet.
        """
        ...

    @property
    def pending(self) -> int:
        """How many publishes wait for their answer."""
        ...

    async def close(self) -> None:
        """Close the channel; pending publishes raise ``ConnectionLost``. Idempotent."""
        ...


class Subscription(Protocol):
    """One consumer on a channel of its own. Settling a delivery after the end of the subscription does nothing:
    the broker has taken the delivery back already, and will hand it over again."""

    #: Done (with the reason) when nothing more will be delivered or can be settled here. Never raises.
    ended: asyncio.Future[BrokerError]
    #: Called, if set, with how many deliveries each write of acks answers. Must not raise.
    on_acks: Callable[[int], None] | None

    def ack(self, delivery: Delivery) -> None:
        """Answer that the job is finished or replaced. Coalesced: sent at the end of the current loop turn."""
        ...

    def release(self, delivery: Delivery) -> None:
        """Give the delivery back to the queue (``nack`` with requeue)."""
        ...

    def reject(self, delivery: Delivery) -> None:
        """Let the broker dead-letter the delivery (``reject`` without requeue)."""
        ...

    async def widen(self, prefetch: int) -> None:
        """Consume with another *prefetch* from now on, on the same channel: outstanding deliveries stay settleable.

        Where the window is full but for what was acked in the same turn of the loop, the broker takes nothing back.
        """
        ...

    async def cancel(self) -> None:
        """Stop new deliveries and wait for the broker's word on it; what was delivered can still be settled."""
        ...

    async def close(self) -> None:
        """Send the acks that wait and close the channel; what is unsettled goes back to the queue. Idempotent."""
        ...


class Link(Protocol):
    """One connection to the broker. It dies once and never heals itself; use it from its event loop only."""

    #: Done (with the reason) when the connection is gone, also by ``close``. Never raises.
    lost: asyncio.Future[BrokerError]

    @property
    def blocked(self) -> bool:
        """Whether the broker has said ``connection.blocked`` (an alarm): nothing written now is read until it ends."""
        ...

    def on_blocked(self, tell: Callable[[str | None], None]) -> None:
        """Call *tell* with the broker's reason whenever ``blocked`` becomes true, and with None when it ends. It must
        not raise."""
        ...

    async def outlet(self) -> Outlet:
        """Open a channel to publish through. Raises ``BrokerError``."""
        ...

    async def consume(
        self, queue: str, prefetch: int, on_delivery: OnDelivery, tag: str, *, slots: int | None = None
    ) -> Subscription:
        """Consume *queue* with manual acks on a channel of its own, as consumer *tag*.

        *slots*: how many deliveries are worked on at once, for whoever looks at the broker's consumers.
        *on_delivery* is called on the loop for each delivery and must not raise. Raises ``TopologyMismatch`` when the
        queue is missing, ``AccessRefused``, ``ConnectionLost``.
        """
        ...

    async def depth(self, queue: str) -> int:
        """How many messages of *queue* are ready, by passive declare. Raises as ``consume`` does."""
        ...

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        ...


class Broker(Protocol):
    """A broker that can be reached."""

    async def connect(self, name: str) -> Link:
        """Open a connection that the management UI shows as *name*. Raises ``ConnectionLost`` or ``AccessRefused``."""
        ...


class Admin(Protocol):
    """Declares topology; opened for one command or one start-up, then closed."""

    async def declare(self, topology: Topology) -> None:
        """Declare everything in *topology*, idempotently. Raises ``TopologyMismatch`` naming what differs."""
        ...

    async def delete(self, exchanges: Sequence[Exchange], queues: Sequence[Queue]) -> None:
        """Delete exchanges, and queues that are empty and unused. Raises ``TopologyMismatch`` when they are not."""
        ...

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        ...
