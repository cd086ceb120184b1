"""What is counted of schedules, at the scheduler and where their jobs are done."""

from __future__ import annotations

import time

import pytest

from penstock import Dead, DeadReason, Done, Event, Failure, Outcome
from penstock.events import JobNotDone, JobsDone
from penstock.metrics.group import MOST_SCHEDULES
from penstock.metrics.meters import MOST_SERIES, OTHER
from penstock.schedules.events import (
    LeadershipLost,
    LeadershipWon,
    SchedulePaused,
    ScheduleResumed,
    SchedulerStandsBy,
    SchedulesRead,
    TicksMissed,
)
from penstock.schedules.model import Schedule
from penstock.schedules.triggers import Every, Once
from tests.support.scene import Scene

PURGE = Schedule("purge", "email.tick", Every(3600))
READ = SchedulesRead((PURGE, Schedule("over", "email.tick", Once(1)), Schedule("off", "a.b", Every(1), enabled=False)))
WON = LeadershipWon("scheduler@here:7-ab", 3, "", 0)


def ended(outcome: Outcome, schedule: str | None) -> Event:
    if isinstance(outcome, Done):
        return JobsDone("email.tick", "jobs.email", [0.2], [3.0], [1], [] if schedule is None else [schedule])
    return JobNotDone("7", "email.tick", "jobs.email", 1, outcome, 0.2, 3.0, schedule)


def test_a_worker_shows_when_a_tick_of_each_schedule_was_done_last() -> None:
    scene, before = Scene("worker"), time.time()
    scene.emit(ended(Done({"much": 1}), "purge"), ended(Done(None), None))
    scene.emit(ended(Dead(DeadReason.REJECTED, Failure("X", "no")), "digest"))
    assert scene.values("schedule_last_done_timestamp_seconds", "schedule") == {"purge"}
    assert (scene.value("schedule_last_done_timestamp_seconds", schedule="purge") or 0) >= before


def test_schedules_named_from_outside_are_bounded() -> None:
    scene = Scene("worker")
    scene.emit(ended(Done(None), "Not A Name"), *(ended(Done(None), f"s{n}") for n in range(MOST_SCHEDULES * 2)))
    names = scene.values("schedule_last_done_timestamp_seconds", "schedule")
    assert (len(names), OTHER in names) == (MOST_SCHEDULES + 1, True)


def test_a_leader_shows_when_each_schedule_ticks_next_and_which_are_paused() -> None:
    scene = Scene("scheduler", READ, SchedulerStandsBy(WON.name))
    assert scene.values("schedule_next_timestamp_seconds", "schedule") == set()
    scene.emit(WON)
    assert scene.values("schedule_next_timestamp_seconds", "schedule") == {"purge"}
    following = scene.value("schedule_next_timestamp_seconds", schedule="purge") or 0
    assert 0 <= following - time.time() <= 3600
    scene.emit(SchedulePaused("purge", "ada", "a fire"))
    assert scene.values("schedule_next_timestamp_seconds", "schedule") == set()
    assert scene.value("schedule_paused", schedule="purge") == 1
    scene.emit(ScheduleResumed("purge", "ada"))
    assert scene.value("schedule_paused", schedule="purge") is None
    scene.emit(LeadershipLost(WON.name, "gone"), LeadershipWon(WON.name, 4, "", 0, ("purge",)))
    assert scene.value("schedule_paused", schedule="purge") == 1
    scene.emit(LeadershipLost(WON.name, "gone"))
    assert scene.values("schedule_paused", "schedule") == set()


def test_who_leads_is_told_by_name_and_term() -> None:
    scene = Scene("scheduler", READ, SchedulerStandsBy(WON.name))
    assert (scene.value("scheduler_info", scheduler=WON.name), scene.value("scheduler_leads")) == (1, 0)
    scene.emit(WON)
    assert (scene.value("scheduler_leads"), scene.value("scheduler_term")) == (1, 3)


@pytest.mark.parametrize("name", ["ticks_total", "refused_total", "missed_total"])
def test_every_schedule_begins_at_nothing_so_that_the_first_miss_is_an_increase(name: str) -> None:
    scene = Scene("scheduler", READ)
    assert scene.value(f"schedule_{name}", schedule="purge") == 0
    scene.emit(TicksMissed("purge", 2, 0))
    assert scene.value("schedule_missed_total", schedule="purge") == 2


def test_a_hundred_thousand_schedules_are_shown_as_far_as_there_is_room() -> None:
    many = SchedulesRead(tuple(Schedule(f"s{n}", "email.tick", Every(3600)) for n in range(100_000)))
    scene = Scene("scheduler", many, WON, *(TicksMissed(f"s{n}", 1, 0) for n in range(90_000, 100_000)))
    assert len(scene.values("schedule_next_timestamp_seconds", "schedule")) == MOST_SERIES
    assert scene.value("schedule_missed_total", schedule="s90000") == 1
    assert (scene.value("schedule_missed_total", schedule=OTHER) or 0) > 8_000
