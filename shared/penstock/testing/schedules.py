"""The schedules of a test: the scheduler's own ticking, by the clock that the test turns and without a rival."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.brokers.memory import MemoryBroker
from penstock.errors import PenstockError, PublishError
from penstock.events import Event, Events
from penstock.message import Delivery
from penstock.publishing import Outgoing, Publishing
from penstock.reconnecting import Reconnecting
from penstock.schedules.due import Agenda
from penstock.schedules.events import SchedulesDue, TickRefused
from penstock.schedules.model import Schedule, utc_text
from penstock.schedules.state import Command, State
from penstock.sending import Sender
from penstock.testing.clock import ManualClock
from penstock.ticking import Ticking

_NAME = "scheduler of a test"
_SEND_WITHIN = 10.0


class ManualSchedules:
    """Publishes the ticks of *schedules* on *broker*, each when *clock* is turned to its instant. One event loop.

    What is due at the instant it opens at, or was before, is not published: as by a scheduler that starts for the first
    time.
    """

    def __init__(self, schedules: Sequence[Schedule], broker: MemoryBroker, clock: ManualClock, events: Events) -> None:
        self._broker = broker
        self._clock = clock
        self._refused: TickRefused | None = None
        self._tick: asyncio.Task[None] | None = None
        self._closed = False
        events.subscribe(self._saw)
        self._leader = _Alone(broker, events)
        now = clock.now_ms()
        state = State(seq=1, through=now // 1000, term=1, leader=_NAME, written=now)
        self._ticking = Ticking(self._leader, state, Agenda(schedules, state.through), clock, events)

    async def open(self) -> None:
        """Wait for the first instant from now on."""
        self._clock.join(self._ticked)
        await self._ticking.once()

    async def close(self) -> None:
        """Publish no more."""
        self._closed = True
        await self._leader.close()

    def _saw(self, event: Event) -> None:
        match event:
            case SchedulesDue(due=int(due)):
                self._clock.call_at(due * 1000, self._wake)
            case TickRefused():
                self._refused = self._refused or event

    def _wake(self) -> None:
        if not self._closed:
            self._tick = asyncio.create_task(self._ticking.once())

    async def _ticked(self) -> None:
        """Wait until what is due now is published, and until its consequences are settled.

        Raises ``PublishError`` for a tick that was refused: a scheduler would tell and try again, a test has to fail.
        """
        tick, self._tick = self._tick, None
        if tick is None:
            return
        await tick
        refused, self._refused = self._refused, None
        if refused is not None:
            raise PublishError(
                f"schedule {refused.schedule}: the tick of {utc_text(refused.instant)} was refused: {refused.reason}; "
                "give WorkerTest the topology you deploy as spec, or leave this schedule out"
            )
        await self._broker.quiet()


class _Alone:
    """The leader that no other scheduler stands beside: its state need not be written anywhere."""

    def __init__(self, broker: MemoryBroker, events: Events) -> None:
        self._links = Reconnecting(broker, _NAME, events)
        self._sender = Sender(self._links)
        self._publishing = Publishing(self._sender, events)

    async def publish(self, ticks: Sequence[Outgoing]) -> list[PenstockError | None]:
        """See ``Leader.publish``."""
        return await self._publishing.send_many(ticks, _SEND_WITHIN)

    async def write(self, state: State, answered: Sequence[Delivery] = ()) -> None:
        """See ``Leader.write``."""

    def commands(self) -> list[tuple[Command, Delivery]]:
        """See ``Leader.commands``: nobody asks for anything."""
        return []

    async def news(self, seconds: float) -> None:
        """See ``Leader.news``: the clock of the test wakes it instead."""

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        await self._sender.close()
        await self._links.close()
