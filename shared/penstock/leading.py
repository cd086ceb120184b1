"""Who leads the schedulers, and what they know: the broker is lock and store in one.

The queue ``jobs.scheduler`` has a single active consumer and holds the state as one message, unsettled in the leader's
hands. Its connection is its right to lead: whoever loses it publishes nothing any more, and the state goes to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from typing import Any  # futures of any result

from penstock.errors import BrokerError, ConnectionLost, PenstockError
from penstock.events import Events
from penstock.failpoints import reach
from penstock.message import Delivery, Message
from penstock.ports import Link, Subscription
from penstock.printable import printable, shortened
from penstock.publishing import Outgoing, Publishing
from penstock.schedules.events import SchedulerMessageRefused
from penstock.schedules.state import Command, State, read_command, read_state
from penstock.sending import Sender
from penstock.tasks import ended
from penstock.topology.names import CLAIM_KEY, KNOCK_KEY, SCHEDULER, STATE_KEY

#: Messages held at once: a state or two, and commands that wait for the next one. Consuming anew with more would hand
#: the leadership on.
_PREFETCH = 100
_MAX_COMMANDS = 50

#: Seconds within which the broker has to confirm a state, and each tick of a batch.
_CONFIRM = 10.0
_CONFIRM_TICK = 5.0

_Age = tuple[int, int]


class Leadership:
    """One connection's candidacy: opened, perhaps won, lost with the connection or the consumer. One event loop.

    What it finds in the queue and does not know it throws away, and tells.
    """

    def __init__(self, link: Link, name: str, events: Events) -> None:
        #: Done, with the reason, when this is over. Never raises.
        self.lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._link = link
        self._name = name
        self._events = events
        self._sender = Sender(_OnlyLink(link))
        self._publishing = Publishing(self._sender, events)
        self._claim = uuid.uuid4().hex
        self._active, self._claimed, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._subscription: Subscription | None = None
        self._early: list[Delivery] = []
        self._held: dict[_Age, tuple[State, Delivery]] = {}
        self._asked: list[tuple[Command, Delivery]] = []
        self._written: _Age = (0, 0)

    @property
    def link_lost(self) -> bool:
        """Whether the connection is gone, and not merely the consumer."""
        return self._link.lost.done()

    async def open(self) -> None:
        """Stand for election: consume, and knock, so that an empty queue is not taken for one that another consumes.

        Raises ``BrokerError``: ``TopologyMismatch`` when the queue is missing.
        """
        self._subscription = await self._link.consume(SCHEDULER, _PREFETCH, self._on_delivery, self._name)
        self._link.lost.add_done_callback(self._on_lost)
        self._subscription.ended.add_done_callback(self._on_lost)
        early, self._early = self._early, []
        for delivery in early:
            self._sort(delivery)
        await self._tell(Message(self._claim.encode(), type=KNOCK_KEY, content_type=None), KNOCK_KEY)

    async def won(self) -> State | None:
        """Wait until this one leads; the newest state there is, None when there is none at all.

        Its own claim comes back after everything that was in the queue before it. Raises ``BrokerError``.
        """
        await self._until(self._active)
        await self._tell(Message(self._claim.encode(), type=CLAIM_KEY, content_type=None), CLAIM_KEY)
        await self._until(self._claimed)
        return self._held[max(self._held)][0] if self._held else None

    async def publish(self, ticks: Sequence[Outgoing]) -> list[PenstockError | None]:
        """Publish *ticks*, pipelined; the answer to each, None where confirmed.

        A broker that takes no messages (an alarm) is waited for. Raises ``ConnectionLost`` at the end of this
        leadership: then some may be out.
        """
        await self._taken()
        answers = await self._publishing.send_many(ticks, _CONFIRM_TICK)
        self._check()
        return answers

    async def write(self, state: State, answered: Sequence[Delivery] = ()) -> None:
        """Make *state* the one that counts, confirmed, and only then let go of the older ones and of *answered*.

        A broker that takes no messages is waited for. Raises ``ConnectionLost`` when this leadership has ended, and the
        other ``BrokerError`` when the state was not taken: then this leadership is to be closed.
        """
        self._written = max(self._written, _age(state))
        await self._tell(Message(state.encode(), type=STATE_KEY), STATE_KEY)
        reach("state-written")
        for delivery in answered:
            self._ack(delivery)
        self._forget_before(_age(state))

    async def news(self, seconds: float) -> None:
        """Return when a command has come, or after *seconds*. Raises ``ConnectionLost`` when this leadership ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until(self._news)

    def wake(self) -> None:
        """Let ``news`` return now."""
        self._news.set()

    def commands(self) -> list[tuple[Command, Delivery]]:
        """The commands that came since the last call; each is to be answered by ``write``."""
        self._news.clear()
        asked, self._asked = self._asked, []
        return asked

    async def close(self) -> None:
        """Let go: what is held goes back to the queue, and another leads. Idempotent; the link stays open."""
        self._end(ConnectionLost("the candidacy was given up on our side"))
        await self._sender.close()
        if self._subscription is not None:
            await self._subscription.close()

    async def _taken(self) -> None:
        """Wait until the broker takes messages. Raises ``BrokerError``."""
        opening = asyncio.create_task(self._sender.outlet())
        waits: list[asyncio.Future[Any]] = [opening, self.lost]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            self._check()
            opening.result()
        finally:
            await ended(opening)

    async def _tell(self, message: Message, key: str) -> None:
        await self._taken()
        deadline = asyncio.get_running_loop().time() + _CONFIRM
        await self._sender.send(message, SCHEDULER, key, deadline)
        self._check()

    async def _until(self, event: asyncio.Event) -> None:
        waiting = asyncio.create_task(event.wait())
        waits: list[asyncio.Future[Any]] = [waiting, self.lost]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        self._check()

    def _check(self) -> None:
        if self.lost.done():
            raise ConnectionLost(str(self.lost.result()))

    def _on_delivery(self, delivery: Delivery) -> None:
        if self._subscription is None:
            self._early.append(delivery)
        else:
            self._sort(delivery)

    def _sort(self, delivery: Delivery) -> None:
        """Take in a message: only the active consumer gets any."""
        self._active.set()
        body = delivery.message.body
        match delivery.message.type:
            case "knock" | "claim":
                self._ack(delivery)
                if delivery.message.type == CLAIM_KEY and body == self._claim.encode():
                    self._claimed.set()
            case "state" if (state := read_state(body)) is not None:
                self._take(state, delivery)
            case "command" if (command := read_command(body)) is not None and len(self._asked) < _MAX_COMMANDS:
                self._asked.append((command, delivery))
                self._news.set()
            case _:
                self._ack(delivery)
                self._events.emit(SchedulerMessageRefused(_strange(delivery)))

    def _take(self, state: State, delivery: Delivery) -> None:
        """Hold a state; of those found before the claim only the newest, for the others say nothing any more."""
        age = _age(state)
        if self._claimed.is_set() and age > self._written:
            self._end(ConnectionLost(f"a newer state came, by {state.leader}: another scheduler leads"))
        elif age < self._written or age in self._held:
            self._ack(delivery)
        else:
            self._held[age] = (state, delivery)
            if not self._claimed.is_set():
                self._forget_before(max(self._held))

    def _forget_before(self, age: _Age) -> None:
        for older in [held for held in self._held if held < age]:
            self._ack(self._held.pop(older)[1])

    def _ack(self, delivery: Delivery) -> None:
        if self._subscription is not None:
            self._subscription.ack(delivery)

    def _on_lost(self, why: asyncio.Future[BrokerError]) -> None:
        self._end(why.result())

    def _end(self, reason: BrokerError) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)


class _OnlyLink:
    """A link that nobody opens anew."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def closed(self) -> bool:
        return self._link.lost.done()

    async def link(self) -> Link:
        if self._link.lost.done():
            raise ConnectionLost(str(self._link.lost.result()))
        return self._link


def _age(state: State) -> _Age:
    """What makes a state newer: a later leader's counts more than any of those before."""
    return state.term, state.seq


def _strange(delivery: Delivery) -> str:
    """What was thrown away, as far as its words tell."""
    kind = shortened(printable(delivery.message.type or "a message without a type"), 40)
    return f"{kind} by the key {shortened(printable(delivery.key), 40)}, {len(delivery.message.body)} bytes"
