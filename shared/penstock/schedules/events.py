"""What happens in a scheduler, as typed events; part of ``penstock.events``."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.schedules.model import Schedule


@dataclass(slots=True, eq=False)
class SchedulesRead:
    """The schedules file was read: these count from now on."""

    schedules: tuple[Schedule, ...]


@dataclass(slots=True, eq=False)
class SchedulesRefused:
    """The schedules file cannot be used as it is; the old schedules go on."""

    reason: str


@dataclass(slots=True, eq=False)
class SchedulerStandsBy:
    """A scheduler stands ready; perhaps another one leads."""

    name: str


@dataclass(slots=True, eq=False)
class LeadershipWon:
    """The scheduler *name* leads from now on, as the *term*-th leader and after *previous*.

    *through*: the instant up to which all ticks are out (seconds since 1970 UTC). *paused*: the schedules that do not
    tick.
    """

    name: str
    term: int
    previous: str
    through: int
    paused: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class LeadershipLost:
    """The scheduler *name* leads no more."""

    name: str
    reason: str


@dataclass(slots=True, eq=False)
class ScheduleStateLost:
    """No state was found on the broker: the first start, or somebody emptied the queue. Nothing is made up for."""

    name: str


@dataclass(slots=True, eq=False)
class Ticked:
    """A schedule's tick for *instant* (seconds since 1970 UTC) is on the broker, *late* seconds after it."""

    schedule: str
    kind: str
    id: str
    instant: int
    late: float


@dataclass(slots=True, eq=False)
class TickRefused:
    """A schedule's tick for *instant* was not taken; *again* says whether it will be tried again."""

    schedule: str
    kind: str
    instant: int
    reason: str
    again: bool


@dataclass(slots=True, eq=False)
class TicksMissed:
    """*count* ticks of a schedule will not be published, the *newest* of them at that instant."""

    schedule: str
    count: int
    newest: int


@dataclass(slots=True, eq=False)
class SchedulesDue:
    """What a leader waits for: *due*, the instant of the earliest tick that is not out (None: none will ever be)."""

    due: int | None


@dataclass(slots=True, eq=False)
class ClockSetBack:
    """The clock is *seconds* behind *through*, the instant up to which all ticks are out (seconds since 1970 UTC).

    None is due until it has caught up. Told again each minute for as long as that lasts.
    """

    seconds: float
    through: int


@dataclass(slots=True, eq=False)
class ClockCaughtUp:
    """The clock is not behind the state any more: ticks come again."""


@dataclass(slots=True, eq=False)
class StateRewound:
    """All ticks had been said to be out up to *before*; from now on it is up to *through*, as somebody asked.

    Both are seconds since 1970 UTC. What falls due between the two comes again, by the same job ids.
    """

    before: int
    through: int
    by: str
    reason: str


@dataclass(slots=True, eq=False)
class SchedulePaused:
    """A schedule ticks no more until it is resumed."""

    schedule: str
    by: str
    reason: str


@dataclass(slots=True, eq=False)
class ScheduleResumed:
    """A schedule ticks again; what fell due meanwhile is not made up for."""

    schedule: str
    by: str


@dataclass(slots=True, eq=False)
class SchedulerMessageRefused:
    """Something in the schedulers' queue, or asked of them, was thrown away, for this *reason*."""

    reason: str
