"""What happens inside, as typed events: logs, metrics and traces are subscribers and nothing more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any  # a subscriber takes the kinds of events it asks for

from penstock.outcome import Outcome
from penstock.schedules.events import (
    ClockCaughtUp,
    ClockSetBack,
    LeadershipLost,
    LeadershipWon,
    SchedulePaused,
    ScheduleResumed,
    SchedulerMessageRefused,
    SchedulerStandsBy,
    SchedulesDue,
    SchedulesRead,
    SchedulesRefused,
    ScheduleStateLost,
    StateRewound,
    Ticked,
    TickRefused,
    TicksMissed,
)


@dataclass(slots=True, eq=False)
class WorkerStarted:
    """A worker begins to run: its *queue*, its *slots* and the *kinds* it has handlers for."""

    queue: str
    slots: int
    kinds: tuple[str, ...]


@dataclass(slots=True, eq=False)
class JobStarted:
    """A handler is about to run. *wait* is seconds since the job was published; None when its message does not tell,
    and for one that was delayed, snoozed or retried."""

    id: str
    kind: str
    queue: str
    attempt: int
    wait: float | None


@dataclass(slots=True, eq=False)
class JobFinished:
    """A delivery was judged. *run* is the seconds its handler took (0 when none ran), *age* those since the job was
    first published (None when its message does not tell), *schedule* the one it says to be a tick of."""

    id: str
    kind: str
    queue: str
    attempt: int
    outcome: Outcome
    run: float
    age: float | None = None
    schedule: str | None = None


class JobNotDone(JobFinished):
    """A delivery was judged, and its job is not done: retried, put off, dead, or nothing to do any more.

    For those who have ``JobsDone`` for the others. Who listens to ``JobFinished`` hears this as well.
    """

    __slots__ = ()


@dataclass(slots=True, eq=False)
class JobsBegun:
    """Of jobs of one kind since this was told last: how many run now, and the *waits* of first attempts that began, as
    in ``JobStarted``. Told twice a second, or after some hundred jobs."""

    kind: str
    queue: str
    running: int
    waits: list[float]


@dataclass(slots=True, eq=False)
class JobsDone:
    """Jobs of one kind that were done since this was told last: for each what ``JobFinished`` has of it. Told as
    ``JobsBegun`` is; for those who count, and need not hear of each, at a fraction of what that costs."""

    kind: str
    queue: str
    runs: list[float]
    ages: list[float]
    attempts: list[int]
    schedules: list[str]


@dataclass(slots=True, eq=False)
class Published:
    """A publish was answered: *result* is ``confirmed`` or the name of the error's class in lower case."""

    kind: str
    result: str
    seconds: float


@dataclass(slots=True, eq=False)
class LinkOpened:
    """A connection stands."""

    name: str


@dataclass(slots=True, eq=False)
class LinkLost:
    """A connection ended against our will."""

    name: str
    reason: str


@dataclass(slots=True, eq=False)
class LinkClosed:
    """A connection that stood was closed on our side."""

    name: str


@dataclass(slots=True, eq=False)
class LinkBlocked:
    """The broker takes nothing more on a connection (an alarm: memory or disk), for the *reason* it gives."""

    name: str
    reason: str


@dataclass(slots=True, eq=False)
class LinkUnblocked:
    """The broker takes messages on a connection again."""

    name: str


@dataclass(slots=True, eq=False)
class ConnectFailed:
    """A try to connect failed; the next follows after *delay* seconds."""

    name: str
    reason: str
    attempt: int
    delay: float


@dataclass(slots=True, eq=False)
class ConsumingStarted:
    """A queue is being consumed."""

    queue: str
    prefetch: int
    tag: str


@dataclass(slots=True, eq=False)
class ConsumingEnded:
    """The consumer is gone (server-sent cancel, channel or connection lost); it will be opened again."""

    queue: str
    reason: str


@dataclass(slots=True, eq=False)
class AcksSent:
    """One write answered *count* finished deliveries of a queue."""

    queue: str
    count: int


@dataclass(slots=True, eq=False)
class WatchdogReopened:
    """Messages were ready and slots free, but nothing came for *seconds*: the consumer is opened anew."""

    queue: str
    ready: int
    seconds: float


@dataclass(slots=True, eq=False)
class LoopTurned:
    """The event loop took *lag* seconds longer than it should have to come back to us; told twice a second."""

    lag: float


@dataclass(slots=True, eq=False)
class LoopLagged:
    """The event loop did not turn for *seconds*: a handler blocked it. *kinds* ran at that time."""

    seconds: float
    kinds: tuple[str, ...]


@dataclass(slots=True, eq=False)
class SettleFailed:
    """A copy could not be published; the original stays unacked and the copy is tried again after *delay* seconds."""

    queue: str
    id: str
    reason: str
    delay: float


@dataclass(slots=True, eq=False)
class DrainStarted:
    """No more deliveries are taken; *running* handlers have *timeout* seconds to end."""

    queue: str
    running: int
    timeout: float


@dataclass(slots=True, eq=False)
class StoreOpened:
    """The store was reached for the first time."""

    store: str


@dataclass(slots=True, eq=False)
class StoreAsked:
    """The store answered a round trip (*operation*, such as ``claim``) after *seconds*, or *failed* to."""

    operation: str
    seconds: float
    failed: bool


@dataclass(slots=True, eq=False)
class StoreLost:
    """The store does not answer; nothing is consumed until it does."""

    store: str
    reason: str


@dataclass(slots=True, eq=False)
class StoreAnswered:
    """The store answers again, after *seconds*."""

    store: str
    seconds: float


@dataclass(slots=True, eq=False)
class Relayed:
    """A relay published *count* jobs of a kind from an outbox, in *seconds* from taking to marking them."""

    kind: str
    count: int
    seconds: float


@dataclass(slots=True, eq=False)
class RelayParked:
    """A job of an outbox cannot be published as it is: it waits there for somebody to look."""

    kind: str
    id: str
    reason: str


@dataclass(slots=True, eq=False)
class RelayPutOff:
    """The broker did not take *count* jobs of a kind from an outbox; they are tried again after *delay* seconds."""

    kind: str
    count: int
    reason: str
    delay: float


@dataclass(slots=True, eq=False)
class OutboxBacklog:
    """What an outbox holds: jobs that wait, seconds since the *oldest* of them was added (None: none), parked jobs."""

    outbox: str
    waiting: int
    oldest: float | None
    parked: int


Event = (
    WorkerStarted
    | JobStarted
    | JobFinished
    | JobNotDone
    | JobsBegun
    | JobsDone
    | Published
    | LinkOpened
    | LinkLost
    | LinkClosed
    | LinkBlocked
    | LinkUnblocked
    | ConnectFailed
    | ConsumingStarted
    | ConsumingEnded
    | AcksSent
    | WatchdogReopened
    | LoopTurned
    | LoopLagged
    | SettleFailed
    | DrainStarted
    | StoreOpened
    | StoreAsked
    | StoreLost
    | StoreAnswered
    | Relayed
    | RelayParked
    | RelayPutOff
    | OutboxBacklog
    | SchedulesRead
    | SchedulesRefused
    | SchedulerStandsBy
    | LeadershipWon
    | LeadershipLost
    | ScheduleStateLost
    | Ticked
    | TickRefused
    | TicksMissed
    | SchedulesDue
    | ClockSetBack
    | ClockCaughtUp
    | StateRewound
    | SchedulePaused
    | ScheduleResumed
    | SchedulerMessageRefused
)
Subscriber = Callable[[Any], None]

_log = logging.getLogger("penstock.events")


class Events:
    """Hands events to subscribers, in the emitter's thread. A subscriber that raises is logged and kept."""

    def __init__(self) -> None:
        self._subscribers: tuple[tuple[Subscriber, tuple[type[Event], ...]], ...] = ()
        self._routes: dict[type[Event], tuple[Subscriber, ...]] = {}

    @property
    def watched(self) -> bool:
        """Whether anybody listens at all."""
        return bool(self._subscribers)

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody listens to events of *kind*: an emitter in a hot path need not make them otherwise."""
        route = self._routes.get(kind)
        return bool(self._route(kind) if route is None else route)

    def subscribe(self, subscriber: Subscriber, *kinds: type[Event]) -> None:
        """Call *subscriber* with every event from now on, or with those of *kinds* and what is made of them."""
        self._subscribers = (*self._subscribers, (subscriber, kinds))
        self._routes = {}

    def emit(self, event: Event) -> None:
        """Tell everybody who wants it. Never raises."""
        route = self._routes.get(type(event))
        for subscriber in self._route(type(event)) if route is None else route:
            try:
                subscriber(event)
            except Exception:  # noqa: BLE001 - an onlooker must not be able to stop a job
                _log.exception("an event subscriber failed on %s", type(event).__name__)

    def _route(self, kind: type[Event]) -> tuple[Subscriber, ...]:
        route = tuple(subscriber for subscriber, kinds in self._subscribers if not kinds or issubclass(kind, kinds))
        self._routes[kind] = route
        return route
