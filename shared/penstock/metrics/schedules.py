"""Schedules, as a scheduler meets them: who leads, what came, how late, and what did not come."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any  # events of any type

from penstock.metrics.group import SHORT, Handle
from penstock.metrics.meters import counter, gauge, histogram
from penstock.metrics.upcoming import Upcoming
from penstock.schedules.events import (
    ClockCaughtUp,
    ClockSetBack,
    LeadershipLost,
    LeadershipWon,
    SchedulePaused,
    ScheduleResumed,
    SchedulerStandsBy,
    SchedulesDue,
    SchedulesRead,
    SchedulesRefused,
    ScheduleStateLost,
    Ticked,
    TickRefused,
    TicksMissed,
)

#: Schedules whose counters are shown before there was anything to count, at most: room is left for those that have.
_MOST_BEGUN = 500


class Ticks:
    """What a leader publishes, and whether this one leads."""

    def __init__(self, _: object) -> None:
        self._info = gauge("penstock_scheduler_info", "1; who this scheduler is in the log and the state.", "scheduler")
        self._leads = gauge("penstock_scheduler_leads", "1 while this scheduler leads, 0 while it stands by.")
        self._term = gauge("penstock_scheduler_term", "How many leaders there were, when this one last led.")
        self._due = gauge("penstock_schedule_due_timestamp_seconds", "Instant of the earliest tick that is not out.")
        self._lag = histogram("penstock_schedule_lag_seconds", "From a tick's instant to its confirm.", SHORT)
        self._ticks = counter("penstock_schedule_ticks_total", "Ticks published.", "schedule")
        self._refused = counter("penstock_schedule_refused_total", "Tries of ticks that were not taken.", "schedule")
        self._missed = counter("penstock_schedule_missed_total", "Ticks that will not be published.", "schedule")
        self._known = gauge("penstock_schedules", "Schedules in the file.")
        self._unusable = counter("penstock_schedules_refused_total", "Changed files that could not be used.")
        self._state_lost = gauge(
            "penstock_schedule_state_lost_timestamp_seconds", "When this scheduler found no state on the broker, or 0."
        )
        self._behind = gauge(
            "penstock_scheduler_clock_behind_seconds", "How far the leader's clock is behind the ticks that are out."
        )
        self._upcoming = Upcoming()
        self._leads.child()
        self._behind.child()
        self._state_lost.child()
        self._unusable.child()
        self.families = (
            *(self._info, self._leads, self._term, self._due, self._lag),
            *(self._ticks, self._refused, self._missed, self._known, self._unusable),
            *(self._state_lost, self._behind, *self._upcoming.families),
        )
        self.handles: Mapping[type[Any], Handle] = {
            SchedulerStandsBy: self._stands_by,
            SchedulePaused: self._paused,
            ScheduleResumed: self._resumed,
            LeadershipWon: self._won,
            LeadershipLost: self._lost,
            SchedulesDue: self._next,
            ClockSetBack: self._set_back,
            ClockCaughtUp: self._caught_up,
            Ticked: self._ticked,
            TickRefused: self._not_taken,
            TicksMissed: self._gone,
            SchedulesRead: self._read,
            SchedulesRefused: self._not_usable,
            ScheduleStateLost: self._found_none,
        }

    def _stands_by(self, event: SchedulerStandsBy) -> None:
        self._info.child(event.name).value = 1

    def _won(self, event: LeadershipWon) -> None:
        self._leads.child().value, self._term.child().value = 1, event.term
        self._upcoming.lead(event.paused)

    def _lost(self, _: LeadershipLost) -> None:
        self._upcoming.stand_by()
        self._leads.child().value = self._due.child().value = self._behind.child().value = 0

    def _next(self, event: SchedulesDue) -> None:
        self._due.child().value = event.due or 0

    def _set_back(self, event: ClockSetBack) -> None:
        self._behind.child().value = event.seconds

    def _caught_up(self, _: ClockCaughtUp) -> None:
        self._behind.child().value = 0

    def _ticked(self, event: Ticked) -> None:
        self._ticks.child(event.schedule).value += 1
        self._lag.child().observe(event.late)

    def _paused(self, event: SchedulePaused) -> None:
        self._upcoming.pause(event.schedule)

    def _resumed(self, event: ScheduleResumed) -> None:
        self._upcoming.resume(event.schedule)

    def _not_taken(self, event: TickRefused) -> None:
        self._refused.child(event.schedule).value += 1

    def _gone(self, event: TicksMissed) -> None:
        self._missed.child(event.schedule).value += event.count

    def _read(self, event: SchedulesRead) -> None:
        self._known.child().value = len(event.schedules)
        self._upcoming.follow(event.schedules)
        # They begin at 0: an increase from nothing is none to Prometheus.
        for schedule in event.schedules[:_MOST_BEGUN]:
            for family in (self._ticks, self._refused, self._missed):
                family.child(schedule.name)

    def _not_usable(self, _: SchedulesRefused) -> None:
        self._unusable.child().value += 1

    def _found_none(self, _: ScheduleStateLost) -> None:
        self._state_lost.child().value = int(time.time())
