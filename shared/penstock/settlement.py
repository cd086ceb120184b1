"""The one place that settles deliveries: copies are confirmed before their original is acked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import assert_never

from penstock import copies
from penstock.clock import Clock
from penstock.copies import Copy
from penstock.errors import BrokerError, PenstockError, TooLarge, Unencodable
from penstock.events import Events, SettleFailed
from penstock.message import Delivery
from penstock.outcome import Cancelled, Dead, Done, Expired, Outcome, Released, Retried, Snoozed
from penstock.ports import Subscription
from penstock.sending import Sender

#: Seconds one try to get a copy confirmed may take, and the longest wait between two tries.
_TRY = 15.0
_LONGEST_WAIT = 10.0


class Settlement:
    """Answers the broker for deliveries, by the outcome of their job. One event loop; safe to share by its tasks."""

    def __init__(self, sender: Sender, clock: Clock, events: Events, worker: str) -> None:
        self._sender = sender
        self._clock = clock
        self._events = events
        self._worker = worker

    def settle_now(self, subscription: Subscription, delivery: Delivery, outcome: Outcome) -> bool:
        """Settle what needs no copy, without waiting, and say whether that was possible."""
        match outcome:
            case Done() | Expired() | Cancelled():
                subscription.ack(delivery)
            case Released():
                subscription.release(delivery)
            case _:
                return False
        return True

    async def settle(self, subscription: Subscription, delivery: Delivery, outcome: Outcome) -> bool:
        """Answer the broker for *delivery*: a duplicate at worst, never a loss.

        Returns False when the delivery died before its copy was confirmed: its redelivery must be settled instead.
        """
        now = self._clock.now_ms()
        match outcome:
            case Done() | Expired() | Cancelled() | Released():
                return self.settle_now(subscription, delivery, outcome)
            case Retried(delay=delay, failure=failure):
                copy = copies.retry(delivery, delay, failure, now, self._worker)
            case Snoozed(delay=delay):
                copy = copies.snooze(delivery, delay, now)
            case Dead():
                copy = copies.dead_letter(delivery, outcome, now, self._worker)
            case _:
                assert_never(outcome)
        return await self.replace(subscription, delivery, [copy])

    async def replace(self, subscription: Subscription, delivery: Delivery, replacements: Sequence[Copy]) -> bool:
        """Publish *replacements*, every one confirmed, then ack *delivery*; False when the delivery died before that.

        While the delivery lives, a copy that cannot be confirmed is tried again with backoff. A copy that is refused
        for itself goes to the dead letters as the broker's own rejection of the original.
        """
        for copy in replacements:
            try:
                if not await self._publish(subscription, delivery, copy):
                    return False
            except (TooLarge, Unencodable):
                subscription.reject(delivery)
                return True
        subscription.ack(delivery)
        return True

    async def _publish(self, subscription: Subscription, delivery: Delivery, copy: Copy) -> bool:
        """Whether *copy* was confirmed; False when the delivery died first, for the broker hands it over again."""
        wait = 0.5
        while not subscription.ended.done():
            try:
                await self._sender.send(copy.message, copy.exchange, copy.key, _now() + _TRY)
                return True
            except (TooLarge, Unencodable):
                raise
            except BrokerError as error:
                self._report(delivery, error, wait)
            await _ended_within(subscription, wait)
            wait = min(wait * 2, _LONGEST_WAIT)
        return False

    def _report(self, delivery: Delivery, error: PenstockError, wait: float) -> None:
        self._events.emit(SettleFailed(delivery.queue, delivery.message.message_id or "", str(error), wait))


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _ended_within(subscription: Subscription, seconds: float) -> None:
    await asyncio.wait([subscription.ended], timeout=seconds)
