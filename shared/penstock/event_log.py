"""The one log subscriber: what happens inside, told in lines; every done job at DEBUG, a summary a minute at INFO."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any  # log fields of any type

import structlog

from penstock.events import (
    ConnectFailed,
    ConsumingEnded,
    ConsumingStarted,
    DrainStarted,
    Events,
    JobFinished,
    JobNotDone,
    JobsDone,
    LinkBlocked,
    LinkLost,
    LinkOpened,
    LinkUnblocked,
    LoopLagged,
    Published,
    Relayed,
    RelayParked,
    RelayPutOff,
    SettleFailed,
    StoreAnswered,
    StoreLost,
    WatchdogReopened,
)
from penstock.outcome import WORDS, Dead, Done, Failure, Retried
from penstock.printable import shortened
from penstock.schedules.events import (
    ClockCaughtUp,
    ClockSetBack,
    LeadershipLost,
    LeadershipWon,
    SchedulePaused,
    ScheduleResumed,
    SchedulerMessageRefused,
    SchedulerStandsBy,
    SchedulesRead,
    SchedulesRefused,
    ScheduleStateLost,
    StateRewound,
    Ticked,
    TickRefused,
    TicksMissed,
)
from penstock.schedules.model import utc_text

SUMMARY_EVERY = 60.0
MAX_ERROR = 300


class EventLog:
    """Logs events. Payloads never; what errors quote is cut. One process; its events may come from any thread."""

    def __init__(self, *, every: float = SUMMARY_EVERY) -> None:
        self._log = structlog.stdlib.get_logger("penstock")
        self._plain = logging.getLogger("penstock")
        self._every = every
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._busy = 0.0
        self._since = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._lines: dict[type[Any], Callable[[Any], None]] = {
            JobsDone: self._done_many,
            JobNotDone: self._not_done,
            Published: self._published,
            LinkOpened: self._opened,
            LinkLost: self._lost,
            LinkBlocked: self._blocked,
            LinkUnblocked: self._unblocked,
            ConnectFailed: self._failed,
            ConsumingStarted: self._consuming,
            ConsumingEnded: self._ended,
            WatchdogReopened: self._reopened,
            LoopLagged: self._lagged,
            SettleFailed: self._unsettled,
            DrainStarted: self._draining,
            StoreLost: self._store_lost,
            StoreAnswered: self._store_answered,
            Relayed: self._relayed,
            RelayParked: self._parked,
            RelayPutOff: self._put_off,
            SchedulesRead: self._schedules_read,
            SchedulesRefused: self._schedules_refused,
            SchedulerStandsBy: self._standing_by,
            LeadershipWon: self._leading,
            LeadershipLost: self._not_leading,
            ScheduleStateLost: self._state_lost,
            Ticked: self._ticked,
            TickRefused: self._tick_refused,
            TicksMissed: self._missed,
            ClockSetBack: self._set_back,
            ClockCaughtUp: self._caught_up,
            StateRewound: self._rewound,
            SchedulePaused: self._paused,
            ScheduleResumed: self._resumed,
            SchedulerMessageRefused: self._strange,
        }

    def watch(self, events: Events) -> None:
        """Log *events* from now on, or count them for the next summary."""
        for kind, line in self._lines.items():
            events.subscribe(line, kind)
        if self._plain.isEnabledFor(logging.DEBUG):
            events.subscribe(self._done, JobFinished)

    def close(self) -> None:
        """Log what the last summary has not told yet. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._summarise()

    def _done_many(self, event: JobsDone) -> None:
        self._busy += sum(event.runs)
        self._count("done", len(event.runs))

    def _done(self, event: JobFinished) -> None:
        if isinstance(event.outcome, Done):
            self._log.debug("job done", **_job(event, "done"))

    def _not_done(self, event: JobNotDone) -> None:
        name = WORDS[type(event.outcome)]
        self._busy += event.run
        self._count(name)
        match event.outcome:
            case Retried(delay=delay, failure=failure):
                self._log.info(
                    "job retried", **_job(event, name), retry_in=delay.total_seconds(), error=_words(failure)
                )
            case Dead(reason=reason, failure=failure):
                self._log.info("job dead", **_job(event, name), reason=str(reason), error=_words(failure))
            case _:
                self._log.debug(f"job {name}", **_job(event, name))

    def _published(self, event: Published) -> None:
        if event.result == "confirmed":
            self._count("published")
        else:
            self._count("refused")
            self._log.info("publish refused", kind=event.kind, error=event.result)

    def _opened(self, event: LinkOpened) -> None:
        self._log.info("connected", connection=event.name)

    def _lost(self, event: LinkLost) -> None:
        self._log.warning("connection lost", connection=event.name, error=_cut(event.reason))

    def _blocked(self, event: LinkBlocked) -> None:
        self._log.warning("the broker takes no messages", connection=event.name, reason=_cut(event.reason))

    def _unblocked(self, event: LinkUnblocked) -> None:
        self._log.info("the broker takes messages again", connection=event.name)

    def _failed(self, event: ConnectFailed) -> None:
        again = round(event.delay, 1)
        error = _cut(event.reason)
        self._log.warning("cannot connect", connection=event.name, attempt=event.attempt, again_in=again, error=error)

    def _consuming(self, event: ConsumingStarted) -> None:
        self._log.info("ready", queue=event.queue, prefetch=event.prefetch, consumer=event.tag)

    def _ended(self, event: ConsumingEnded) -> None:
        self._log.warning("consumer lost", queue=event.queue, error=_cut(event.reason))

    def _reopened(self, event: WatchdogReopened) -> None:
        self._log.warning(
            "consumer silent, reopened", queue=event.queue, ready=event.ready, silent_s=round(event.seconds)
        )

    def _lagged(self, event: LoopLagged) -> None:
        self._log.warning("event loop blocked", kinds=list(event.kinds), blocked_s=round(event.seconds, 1))

    def _unsettled(self, event: SettleFailed) -> None:
        again = round(event.delay, 1)
        error = _cut(event.reason)
        self._log.warning("copy not confirmed", job_id=event.id, queue=event.queue, again_in=again, error=error)

    def _draining(self, event: DrainStarted) -> None:
        self._log.info("draining", queue=event.queue, running=event.running, timeout_s=event.timeout)

    def _store_lost(self, event: StoreLost) -> None:
        self._log.warning("store away, not consuming", store=event.store, error=_cut(event.reason))

    def _store_answered(self, event: StoreAnswered) -> None:
        self._log.info("store answers again", store=event.store, away_s=round(event.seconds, 1))

    def _relayed(self, event: Relayed) -> None:
        self._count("relayed", times=event.count)

    def _parked(self, event: RelayParked) -> None:
        self._log.warning("job parked in the outbox", job_id=event.id, kind=event.kind, error=_cut(event.reason))

    def _put_off(self, event: RelayPutOff) -> None:
        again = round(event.delay, 1)
        self._log.warning("not relayed", kind=event.kind, jobs=event.count, again_in=again, error=_cut(event.reason))

    def _schedules_read(self, event: SchedulesRead) -> None:
        self._log.info("schedules read", schedules=len(event.schedules))

    def _schedules_refused(self, event: SchedulesRefused) -> None:
        self._log.error("schedules not usable, the old ones go on", error=_cut(event.reason))

    def _standing_by(self, event: SchedulerStandsBy) -> None:
        self._log.info("standing by", scheduler=event.name)

    def _leading(self, event: LeadershipWon) -> None:
        through = utc_text(event.through)
        self._log.info("leading", scheduler=event.name, term=event.term, after=event.previous, through=through)

    def _not_leading(self, event: LeadershipLost) -> None:
        self._log.warning("leading no more", scheduler=event.name, error=_cut(event.reason))

    def _state_lost(self, event: ScheduleStateLost) -> None:
        self._log.warning("no state of schedulers found: nothing is made up for", scheduler=event.name)

    def _ticked(self, event: Ticked) -> None:
        late = round(event.late, 3)
        self._log.info("tick", schedule=event.schedule, kind=event.kind, job_id=event.id, late_s=late)

    def _tick_refused(self, event: TickRefused) -> None:
        error, instant = _cut(event.reason), utc_text(event.instant)
        self._log.warning("tick refused", schedule=event.schedule, instant=instant, again=event.again, error=error)

    def _missed(self, event: TicksMissed) -> None:
        newest = utc_text(event.newest)
        self._log.warning("ticks missed", schedule=event.schedule, ticks=event.count, newest=newest)

    def _set_back(self, event: ClockSetBack) -> None:
        until = utc_text(event.through)
        cure = "set the clock right; if it is right, another one was ahead: penstock schedule rewind"
        self._log.error("the clock is behind: no ticks until", until=until, behind_s=event.seconds, cure=cure)

    def _caught_up(self, _: ClockCaughtUp) -> None:
        self._log.info("the clock is not behind any more: ticks come again")

    def _rewound(self, event: StateRewound) -> None:
        through, before, by = utc_text(event.through), utc_text(event.before), _cut(event.by)
        self._log.warning("rewound", through=through, was=before, by=by, reason=_cut(event.reason))

    def _paused(self, event: SchedulePaused) -> None:
        self._log.info("schedule paused", schedule=event.schedule, by=_cut(event.by), reason=_cut(event.reason))

    def _resumed(self, event: ScheduleResumed) -> None:
        self._log.info("schedule resumed", schedule=event.schedule, by=_cut(event.by))

    def _strange(self, event: SchedulerMessageRefused) -> None:
        self._log.warning("refused in the schedulers' queue", what=_cut(event.reason))

    def _count(self, what: str, times: int = 1) -> None:
        self._counts[what] += times
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        """Have the summary told in a minute; a thread without a loop tells it with the last line of all."""
        try:
            self._timer = asyncio.get_running_loop().call_later(self._every, self._summarise)
        except RuntimeError:
            return

    def _summarise(self) -> None:
        self._timer = None
        now = time.monotonic()
        counts, seconds, busy = dict(self._counts), now - self._since, self._busy
        self._counts.clear()
        self._since, self._busy = now, 0.0
        if counts:
            self._log.info("summary", **counts, seconds=round(seconds, 1), run_s=round(busy, 3))


def subscribe(events: Events, *, every: float = SUMMARY_EVERY) -> EventLog:
    """Log *events* from now on, with a summary *every* so many seconds; close the returned log at the end."""
    log = EventLog(every=every)
    log.watch(events)
    return log


def _job(event: JobFinished, outcome: str) -> dict[str, Any]:
    return {
        "job_id": event.id,
        "kind": event.kind,
        "queue": event.queue,
        "attempt": event.attempt,
        "outcome": outcome,
        "duration_ms": round(event.run * 1000, 3),
    }


def _words(failure: Failure) -> str:
    return _cut(f"{failure.type}: {failure.text}" if failure.text else failure.type)


def _cut(text: str) -> str:
    return shortened(text, MAX_ERROR)
