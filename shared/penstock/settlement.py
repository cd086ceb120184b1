"""The one place that settles deliveries: copies are confirmed before their original is acked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import assert_never

from penstock import copies
from penstock.claiming import Claiming
from penstock.claims import Mark, State
from penstock.clock import Clock
from penstock.copies import Copy
from penstock.errors import BrokerError, PenstockError, TooLarge, Unencodable
from penstock.events import Events, SettleFailed
from penstock.failpoints import reach
from penstock.message import Delivery
from penstock.outcome import Cancelled, Dead, Done, Duplicate, Expired, Outcome, Released, Retried, Skipped, Snoozed
from penstock.ports import Subscription
from penstock.sending import Sender

#: Seconds one try to get a copy confirmed may take, and the longest wait between two tries.
_TRY = 15.0
_LONGEST_WAIT = 10.0


class Settlement:
    """Answers the broker for deliveries, by the outcome of their job. One event loop; safe to share by its tasks."""

    def __init__(
        self, sender: Sender, clock: Clock, events: Events, worker: str, claiming: Claiming | None = None
    ) -> None:
        self._claiming = claiming
        self._sender = sender
        self._clock = clock
        self._events = events
        self._worker = worker

    def settle_now(self, subscription: Subscription, delivery: Delivery, outcome: Outcome) -> bool:
        """Settle what needs no copy, without waiting, and say whether that was possible."""
        match outcome:
            case Done() | Expired() | Cancelled() | Duplicate() | Skipped():
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
            case Done() | Expired() | Cancelled() | Duplicate() | Skipped() | Released():
                return self.settle_now(subscription, delivery, outcome)
            case Retried(delay=delay, failure=failure):
                copy = copies.retry(delivery, delay, failure, now, self._worker)
            case Snoozed(delay=delay, same_copy=same_copy):
                copy = copies.snooze(delivery, delay, now, same_copy=same_copy)
            case Dead():
                copy = copies.dead_letter(delivery, outcome, now, self._worker)
            case _:
                assert_never(outcome)
        mark = None
        if outcome.claim is not None:
            mark = Mark(outcome.claim, State.DEAD if isinstance(outcome, Dead) else State.MOVED)
        return await self.replace(subscription, delivery, [copy], mark)

    async def replace(
        self, subscription: Subscription, delivery: Delivery, replacements: Sequence[Copy], mark: Mark | None = None
    ) -> bool:
        """Publish *replacements*, every one confirmed, then ack *delivery*; False when the delivery died before that.

        *mark* is told to the store between the two: earlier it would lose the job when the copy never comes to be. A
        store that is away is not waited for: the copy's higher number says the same.

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
        reach("copy-confirmed")
        if mark is not None and self._claiming is not None:
            await self._claiming.mark(mark)
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
