"""The scheduler: any number of them run, the broker lets one lead, and that one publishes what falls due."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol  # tasks of any kind

from penstock.clock import Clock, SystemClock
from penstock.errors import BrokerError, ConnectionLost
from penstock.events import ConnectFailed, Events
from penstock.leading import Leadership
from penstock.ports import Broker, Link
from penstock.reconnecting import CONNECT_TIMEOUT, Reconnecting
from penstock.schedules.due import Agenda
from penstock.schedules.events import LeadershipLost, LeadershipWon, SchedulerStandsBy, ScheduleStateLost
from penstock.schedules.model import Schedule
from penstock.schedules.state import State
from penstock.tasks import ended
from penstock.ticking import REWRITE, Ticking

#: Seconds between two looks at the file, before a new candidacy, and before one after the broker refused something.
_POLL_EVERY = 1.0
_PAUSE = 0.2
_REFUSED_PAUSE = 2.0

#: What a state's ticks are out up to is seldom longer ago (seconds), since it is written anew so often.
_OLDEST_STATE = 2 * int(REWRITE)

#: Seconds a leader that is stopped may take to finish its move.
_LAST_MOVE = 10.0

#: A leader that the broker takes the state away from had held it for too long: from then on it writes it after half of
#: that time, but not sooner than this (seconds).
_SOONEST_REWRITE = 1.0


class Source(Protocol):
    """Where schedules come from."""

    @property
    def schedules(self) -> Sequence[Schedule]:
        """Those that count now."""
        ...

    async def poll(self) -> bool:
        """Look whether there are others now, and take them; whether there were. Never raises."""
        ...


class Scheduler:
    """Publishes the ticks of *source* on *broker* while it leads. Any number may run; used once, on one event loop.

    Its one connection is its right to lead: *broker* should speak a short heartbeat (5 s), so that one that froze is
    given up soon. *rewrite*: seconds after which the state is written anew at the latest.
    """

    def __init__(
        self,
        source: Source,
        broker: Broker,
        *,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        rewrite: float = REWRITE,
        clock: Clock | None = None,
        events: Events | None = None,
    ) -> None:
        self.events = events or Events()
        #: No two processes have the same: a host's name and a process id come again.
        self.name = f"scheduler@{socket.gethostname()}:{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._source = source
        self._clock = clock or SystemClock()
        self._rewrite = rewrite
        self._links = Reconnecting(broker, self.name, self.events, connect_timeout=connect_timeout)
        self._stopping = False
        self._leadership: Leadership | None = None
        self._ticking: Ticking | None = None
        self._agenda = Agenda(source.schedules, self._since)
        self._stood = False

    async def run(self, *, stop: asyncio.Event) -> None:
        """Stand by or lead until *stop*; a move under way ends first, then another may lead at once.

        Raises ``BrokerError`` when the broker is not reached within the connect timeout, refuses us, or has no queue
        for schedulers. Later it is waited for without end.
        """
        tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._follow())]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await self._step_down(tasks[0])
            await ended(*tasks, stopping)
            await self._links.close()

    async def _step_down(self, working: asyncio.Task[None]) -> None:
        """Let a leader finish its move, so that it leaves one state behind and no tick twice."""
        self._stopping = True
        if self._leadership is not None:
            self._leadership.wake()
            await asyncio.wait([working], timeout=_LAST_MOVE)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_POLL_EVERY)
            if await self._source.poll():  # of many schedules the rest takes a while, and ticks go on meanwhile
                self._agenda = await asyncio.to_thread(Agenda, self._source.schedules, self._since)
            if self._ticking is None:
                self._agenda.move(self._since)

    @property
    def _since(self) -> int:
        """From when on (seconds since 1970 UTC) ticks may be to come: so that an agenda has never far to move."""
        if self._ticking is not None:
            return self._ticking.state.through
        return self._clock.now_ms() // 1000 - _OLDEST_STATE

    async def _work(self) -> None:
        while not self._stopping:
            link = await self._links.link()
            pause = _PAUSE
            try:
                await self._stand(link)
            except ConnectionLost:
                pass  # told where it happened; stand again
            except BrokerError as error:
                if not self._stood:
                    raise
                pause = _REFUSED_PAUSE
                self.events.emit(ConnectFailed(self.name, str(error), 1, pause))
            await self._links.renew(link)
            await asyncio.sleep(pause)

    async def _stand(self, link: Link) -> None:
        """One candidacy, to its end. Raises ``BrokerError``."""
        leadership = Leadership(link, self.name, self.events)
        try:
            await leadership.open()
            self._stood = True
            self.events.emit(SchedulerStandsBy(self.name))
            found = await leadership.won()
            await self._lead(leadership, found)
        finally:
            await leadership.close()

    async def _lead(self, leadership: Leadership, found: State | None) -> None:
        now_ms = self._clock.now_ms()
        if found is None:
            self.events.emit(ScheduleStateLost(self.name))
        before = found or State(seq=0, through=now_ms // 1000, term=0, leader="", written=now_ms)
        state = replace(before, seq=before.seq + 1, term=before.term + 1, leader=self.name, written=now_ms)
        await leadership.write(state)
        self.events.emit(LeadershipWon(self.name, state.term, before.leader, state.through, tuple(state.paused)))
        ticking = Ticking(leadership, state, self._agenda, self._clock, self.events, rewrite=self._rewrite)
        self._leadership, self._ticking = leadership, ticking
        try:
            await self._tick(ticking)
        except BrokerError as error:
            self.events.emit(LeadershipLost(self.name, str(error)))
            if not leadership.link_lost:
                self._rewrite = max(min(self._rewrite, ticking.held) / 2, _SOONEST_REWRITE)
            raise
        finally:
            self._leadership = self._ticking = None

    async def _tick(self, ticking: Ticking) -> None:
        while not self._stopping:
            if self._agenda is not ticking.agenda:
                before = ticking.agenda
                ticking.follow(self._agenda)
                asyncio.get_running_loop().run_in_executor(None, before.clear)
            await ticking.once()
