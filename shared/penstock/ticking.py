"""A leader's term: publishes what falls due, then the state that says so, over and over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from penstock.clock import Clock
from penstock.errors import BrokerError, PenstockError
from penstock.events import Events
from penstock.failpoints import reach
from penstock.message import MAX_BODY, Delivery
from penstock.publishing import Outgoing, Packer
from penstock.schedules.due import Agenda, Due, still_owed
from penstock.schedules.events import (
    ClockCaughtUp,
    ClockSetBack,
    SchedulePaused,
    ScheduleResumed,
    SchedulerMessageRefused,
    SchedulesDue,
    StateRewound,
    Ticked,
    TickRefused,
    TicksMissed,
)
from penstock.schedules.model import Schedule, utc_text
from penstock.schedules.state import Command, Pause, State
from penstock.schedules.ticks import tick, tick_headers

#: Seconds after which the state is written anew though nothing happened: the broker takes a message back that is held
#: for longer than its consumer timeout (30 min). And between two looks at clock and file.
REWRITE = 60.0
_LOOK_EVERY = 1.0

#: Seconds to the first further try of a refused tick; each is twice as late, up to the longest.
_SOONEST_AGAIN, _LATEST_AGAIN = 1.0, 30.0

#: A clock this far (seconds) behind the state was set back, and not merely another host's. That is told so often.
_SET_BACK = 5
_TELL_EVERY = 60.0


#: Refused ticks kept of a schedule, the newest.
MAX_OWED = 1000


@dataclass(frozen=True, slots=True)
class _Tick:
    schedule: Schedule
    instant: int


@dataclass(frozen=True, slots=True)
class _Rest:
    """When a schedule whose ticks were refused is tried again (loop time), and after how long."""

    until: float = 0.0
    seconds: float = 0.0

    def longer(self, now: float) -> _Rest:
        seconds = min(self.seconds * 2 or _SOONEST_AGAIN, _LATEST_AGAIN)
        return _Rest(now + seconds, seconds)


_RESTED = _Rest()


class Leader(Protocol):
    """Who publishes in a term, and remembers: a ``Leadership``, or one that has no rivals."""

    async def publish(self, ticks: Sequence[Outgoing]) -> list[PenstockError | None]:
        """See ``Leadership.publish``."""
        ...

    async def write(self, state: State, answered: Sequence[Delivery] = ()) -> None:
        """See ``Leadership.write``."""
        ...

    def commands(self) -> list[tuple[Command, Delivery]]:
        """See ``Leadership.commands``."""
        ...

    async def news(self, seconds: float) -> None:
        """See ``Leadership.news``."""
        ...


class Ticking:
    """The term of *leader* from *state* on, by the schedules of *agenda*. Used once, on one event loop.

    Ticks go out first, confirmed; then the state, confirmed; then the old state is let go. Whoever leads after a crash
    in between publishes the same ticks by the same ids. A tick that is refused holds up no other.
    """

    def __init__(
        self,
        leader: Leader,
        state: State,
        agenda: Agenda,
        clock: Clock,
        events: Events,
        *,
        rewrite: float = REWRITE,
    ) -> None:
        self.state = state
        self._leader = leader
        self._clock = clock
        self._events = events
        self._rewrite = rewrite
        self._packer = Packer(clock, "penstock-scheduler", MAX_BODY, None)
        self._rests: dict[str, _Rest] = {}
        self._set_back_told: float | None = None
        self._told: int | None = -1
        self._written = time.monotonic()
        self.follow(agenda)

    @property
    def held(self) -> float:
        """Seconds since the state was last written, by no clock that anybody sets."""
        return time.monotonic() - self._written

    def follow(self, agenda: Agenda) -> None:
        """Go by *agenda* from now on: nothing that is out comes again, nothing that is due is left out."""
        self.agenda = agenda
        self.agenda.move(self.state.through)

    async def once(self) -> None:
        """Do what is due now, then wait until there may be more: a second at most. Raises ``ConnectionLost``."""
        now = self._clock.now_ms() // 1000
        self._look_at_clock(now)
        commands = self._leader.commands()
        retried = self._retried(now)
        found = self.agenda.take(now)
        if found or retried or commands or self.held >= self._rewrite:
            await self._move(found, retried, commands, now)
        if self.agenda.next != self._told:
            self._told = self.agenda.next
            self._events.emit(SchedulesDue(self._told))
        await self._leader.news(self._pause())

    async def _move(
        self, found: list[Due], retried: list[Due], commands: list[tuple[Command, Delivery]], now: int
    ) -> None:
        """Publish *found* and *retried*, obey *commands*, and write that it was done."""
        asked = [command for command, _ in commands]
        paused, through = self._obeyed(asked), self._through(asked, now)
        live = [due for due in (*retried, *found) if due.schedule.name not in paused]
        refused = await self._publish([_Tick(due.schedule, instant) for due in live for instant in due.ticks])
        for due in live:
            if due.missed:
                self._events.emit(TicksMissed(due.schedule.name, due.missed, due.newest_missed))
        reach("ticks-published")
        owed = self._owed({due.schedule.name for due in retried}, refused)
        rewound = through < self.state.through
        self.state = self._bounded(
            replace(
                self.state,
                seq=self.state.seq + 1,
                through=through,
                written=self._clock.now_ms(),
                paused=paused,
                owed={
                    name: kept
                    for name, instants in owed.items()
                    if name not in paused and (kept := tuple(each for each in instants if each <= through))
                },
            )
        )
        await self._leader.write(self.state, [delivery for _, delivery in commands])
        self._written = time.monotonic()
        if rewound:
            self.agenda.move(through)

    async def _publish(self, ticks: Sequence[_Tick]) -> list[_Tick]:
        """Publish *ticks*; the ones to be tried again."""
        packed = [(each, self._packed(each)) for each in ticks]
        outgoing = [(each, item) for each, item in packed if isinstance(item, Outgoing)]
        answers = await self._leader.publish([item for _, item in outgoing]) if outgoing else []
        refused = []
        confirmed = self._clock.now_ms() / 1000
        for (each, item), answer in zip(outgoing, answers, strict=True):
            if answer is None:
                late = confirmed - each.instant
                self._events.emit(Ticked(each.schedule.name, each.schedule.kind, item.receipt.id, each.instant, late))
            elif self._refused(each, answer):
                refused.append(each)
        return refused

    def _packed(self, each: _Tick) -> Outgoing | None:
        """The message of a tick; None, told, when there can be none."""
        try:
            outgoing = self._packer.pack(tick(each.schedule, each.instant))
        except PenstockError as error:
            self._refused(each, error)
            return None
        outgoing.message.headers |= tick_headers(each.schedule)
        return outgoing

    def _refused(self, each: _Tick, error: PenstockError) -> bool:
        """Tell that a tick was not taken; whether it may be another time."""
        again = isinstance(error, BrokerError)
        self._events.emit(TickRefused(each.schedule.name, each.schedule.kind, each.instant, str(error), again))
        if not again:
            self._events.emit(TicksMissed(each.schedule.name, 1, each.instant))
        return again

    def _retried(self, now: int) -> list[Due]:
        """The refused ticks whose turn it is again."""
        clock = asyncio.get_running_loop().time()
        turn = [
            name
            for name in self.state.owed
            if name in self.agenda.schedules and self._rests.get(name, _RESTED).until <= clock
        ]
        return [still_owed(self.agenda.schedules[name], self.state.owed[name], now) for name in turn]

    def _owed(self, retried: Collection[str], refused: Sequence[_Tick]) -> dict[str, tuple[int, ...]]:
        """What is owed from now on: what waits for its turn, and what was refused now."""
        owed = {name: list(instants) for name, instants in self.state.owed.items() if name not in retried}
        for each in refused:
            owed.setdefault(each.schedule.name, []).append(each.instant)
        failed = {each.schedule.name for each in refused}
        now = asyncio.get_running_loop().time()
        for name in failed:
            self._rests[name] = self._rests.get(name, _RESTED).longer(now)
        for name in set(retried) - failed:
            self._rests.pop(name, None)
        return {name: tuple(instants[-MAX_OWED:]) for name, instants in owed.items() if name in self.agenda.schedules}

    def _bounded(self, state: State) -> State:
        """*state*, without what is owed when it has no room for it."""
        if state.fits:
            return state
        for name, instants in state.owed.items():
            self._events.emit(TicksMissed(name, len(instants), max(instants)))
        return replace(state, owed={})

    def _obeyed(self, commands: Iterable[Command]) -> dict[str, Pause]:
        """What is paused once *commands* are obeyed."""
        paused = dict(self.state.paused)
        for asked in commands:
            if asked.command == "pause":
                pause = Pause(asked.at, asked.by, asked.reason)
                if not replace(self.state, paused={**paused, asked.name: pause}, owed={}).fits:
                    self._events.emit(SchedulerMessageRefused(f"to pause {asked.name}: so many pauses have no room"))
                    continue
                paused[asked.name] = pause
                self._events.emit(SchedulePaused(asked.name, asked.by, asked.reason))
            elif asked.command == "resume" and paused.pop(asked.name, None) is not None:
                self._events.emit(ScheduleResumed(asked.name, asked.by))
        return paused

    def _through(self, commands: Iterable[Command], now: int) -> int:
        """Up to when all ticks are out after a move at *now*: never earlier than before, unless *commands* ask for it
        and the clock is behind the state."""
        through = max(self.state.through, now)
        for asked in commands:
            if asked.command == "rewind" and through - now > _SET_BACK:
                before, through = through, max(0, now if asked.to is None else min(asked.to, now))
                self._events.emit(StateRewound(before, through, asked.by, asked.reason))
            elif asked.command == "rewind":
                reason = f"to rewind: ticks are out up to {utc_text(through)}, which is not ahead of this clock"
                self._events.emit(SchedulerMessageRefused(reason))
        return through

    def _look_at_clock(self, now: int) -> None:
        behind, told = self.state.through - now, self._set_back_told
        if behind <= _SET_BACK:
            if told is not None:
                self._events.emit(ClockCaughtUp())
            self._set_back_told = None
        elif told is None or time.monotonic() - told >= _TELL_EVERY:
            self._set_back_told = time.monotonic()
            self._events.emit(ClockSetBack(float(behind), self.state.through))

    def _pause(self) -> float:
        """Seconds until something may be due: a tick, or the state itself."""
        pause = min(_LOOK_EVERY, self._rewrite - self.held)
        if self.agenda.next is not None:
            pause = min(pause, self.agenda.next - self._clock.now_ms() / 1000)
        return max(0.0, pause)
