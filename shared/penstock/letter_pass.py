"""One pass over a dead-letter queue, from its oldest letter to the last that was there when the pass began."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any  # futures of different results are waited for together

from penstock.errors import BrokerError, ConnectionLost
from penstock.letters import DeadLetter, Filter
from penstock.message import Delivery, Message
from penstock.ports import Link, Subscription

#: Deliveries asked for at first; doubled when that many are held because the filter does not take them.
_PREFETCH = 500
_MAX_PREFETCH = 65_535

#: Seconds without a delivery after which the broker is asked whether any is left, and how often it is asked.
_SILENCE = 2.0
_ASKED = 5

#: Seconds the queue may take to have its messages back (somebody else may take them first), and between two looks.
_RETURN = 5.0
_STEP = 0.02

_FORGOTTEN = Message(b"")


class LetterPass:
    """Hands out the letters of *queue* one by one and gives back those that are not settled. One event loop.

    To keep the order of a quorum queue takes three things, measured on 3.10.8, 4.0.5 and 4.3.6:
    - What is not settled goes back by closing the channel. Requeued one by one, in order, letters come out shuffled
      from the 33rd on (3.10), or when the consumer was widened meanwhile (all three).
    - The consumer is widened only while nothing is on its way: when all it may hold is here, and no ack is sent.
    - What goes back lies behind other letters that went back earlier, so a pass that is left early first takes in all
      of those: they are delivered first, and marked as redelivered.
    """

    def __init__(self, link: Link, queue: str, tag: str) -> None:
        self._link = link
        self._queue = queue
        self._tag = tag
        self._left = self._there = 0
        self._prefetch = _PREFETCH
        self._held = 0  # by the present consumer
        self._newest = self._widened_at = 0  # delivery tags
        self._stale = False  # whether the newest delivery was delivered before
        self._late_acks: list[Delivery] | None = None  # collected while the consumer is widened
        self._arrived: deque[Delivery] = deque()
        self._news = asyncio.Event()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Begin. Raises ``BrokerError``."""
        self._left = self._there = await self._link.depth(self._queue)
        if self._left:
            self._subscription = await self._link.consume(self._queue, self._prefetch, self._take, self._tag)

    async def lost(self) -> BrokerError:
        """Wait until its letters cannot be acked any more, because the broker has them back, and return why."""
        assert self._subscription is not None
        return await asyncio.shield(self._subscription.ended)

    async def next(self, where: Filter, now_ms: int) -> tuple[Delivery, DeadLetter] | None:
        """The next letter that *where* takes, or None when there is none. Raises ``BrokerError``."""
        while self._left > 0 and (self._arrived or await self._more()):
            if self._subscription is not None and self._subscription.ended.done():
                raise self._subscription.ended.result()  # the broker has them back
            self._left -= 1
            delivery = self._arrived.popleft()
            letter = DeadLetter.of(delivery)
            if where.takes(letter, now_ms):
                return delivery, letter
            self.forget(delivery)
        return None

    @staticmethod
    def forget(delivery: Delivery) -> None:
        """The letter stays: it is held until the end, but not in memory."""
        delivery.message = _FORGOTTEN

    def settle(self, delivery: Delivery) -> None:
        """The letter is done with: ack it."""
        self._there -= 1
        if self._late_acks is None:
            self._ack(delivery)
        else:
            self._late_acks.append(delivery)

    async def close(self) -> None:
        """End the pass; what is not settled is back in its place when this returns."""
        if self._subscription is None:
            return
        with contextlib.suppress(BrokerError):
            await self._take_in()
        await self._subscription.close()
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(_RETURN):
                await self._returned()

    async def _take_in(self) -> None:
        """Hold every letter that was delivered to somebody before."""
        while self._stale and self._left > 0:
            self._left -= len(self._arrived)
            for delivery in self._arrived:
                self.forget(delivery)
            self._arrived.clear()
            if self._left <= 0 or not await self._more():
                return

    async def _returned(self) -> None:
        """The broker answers the close before the queue has taken its messages back; the next pass would miss them."""
        while await self._link.depth(self._queue) < self._there:  # noqa: ASYNC110 - the broker does not tell when
            await asyncio.sleep(_STEP)

    def _ack(self, delivery: Delivery) -> None:
        assert self._subscription is not None
        self._subscription.ack(delivery)
        if delivery.tag > self._widened_at:
            self._held -= 1

    def _take(self, delivery: Delivery) -> None:
        self._held += 1
        self._newest, self._stale = delivery.tag, delivery.redelivered
        self._arrived.append(delivery)
        self._news.set()

    async def _more(self) -> bool:
        """Wait for a delivery; False when somebody else has taken what was left."""
        assert self._subscription is not None
        if self._held >= self._prefetch:
            await self._widen(self._subscription)
        for _ in range(_ASKED):
            self._news.clear()
            if self._arrived or await self._told(self._subscription):
                return True
            if await self._link.depth(self._queue) == 0:
                return False
        raise ConnectionLost(f"the broker holds letters in {self._queue!r} and does not deliver them")

    async def _widen(self, subscription: Subscription) -> None:
        """Consume on with a window twice as wide, for what is held takes all of this one."""
        self._prefetch = min(self._prefetch * 2, _MAX_PREFETCH)
        self._held, self._widened_at, self._late_acks = 0, self._newest, []
        try:
            await subscription.widen(self._prefetch)
        finally:
            late, self._late_acks = self._late_acks, None
            for delivery in late:
                self._ack(delivery)

    async def _told(self, subscription: Subscription) -> bool:
        """Whether a delivery came within a silence. Raises the reason when none can come any more."""
        waiting = asyncio.create_task(self._news.wait())
        waits: list[asyncio.Future[Any]] = [waiting, subscription.ended]
        try:
            await asyncio.wait(waits, timeout=_SILENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not self._arrived and subscription.ended.done():
            raise subscription.ended.result()
        return bool(self._arrived)
