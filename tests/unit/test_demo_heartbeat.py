"""The demo's schedule: which ticks count, what is said of them, and a file that schedulers can read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penstock.schedules.reading import read_schedules
from penstock.schedules.ticks import tick
from penstock_jobs.credits import CREDIT_ADD
from services.demo.heartbeat import EVERY, USER, Heartbeat
from services.demo.ledger import Entry

#: A multiple of EVERY.
START = 1_800_000_000

BEAT = Heartbeat("run-1", START - 2)


def entries(*ids: str) -> list[Entry]:
    return [Entry(each, None, USER, 1, BEAT.reason) for each in ids]


def test_the_file_says_what_is_expected(tmp_path: Path) -> None:
    BEAT.write(tmp_path / "schedules.yaml")
    (schedule,) = read_schedules(tmp_path / "schedules.yaml")
    instants = schedule.following(0, 3)
    assert instants == [START, START + EVERY, START + 2 * EVERY]
    jobs = [tick(schedule, instant) for instant in instants]
    assert [job.id for job in jobs] == BEAT.due(START + 2 * EVERY)
    args = CREDIT_ADD.decode(jobs[0].kind.encode(jobs[0].args))
    assert (args.user, args.reason) == (USER, BEAT.reason)


def test_every_tick_once_is_right() -> None:
    found = BEAT.judge(entries(*BEAT.due(START + 17)), START + 17.9, kills=1)
    assert found.right
    assert found.line == "schedule heartbeat: 4 ticks, leader killed once, none missed, none doubled"


def test_a_tick_that_is_missing_and_one_that_came_twice_are_told() -> None:
    first, second, third = BEAT.due(START + 10)
    found = BEAT.judge(entries(first, third, third), START + 10, kills=2)
    assert (found.missed, found.doubled, found.right) == ((second,), 1, False)
    assert found.line == "schedule heartbeat: 2 ticks, leader killed 2 times, 1 missed, 1 doubled"


@pytest.mark.parametrize(("until", "missed"), [(START + 4.99, 0), (START + 5, 1), (START + 14, 2)])
def test_a_tick_that_is_not_due_yet_is_not_missed_but_counts(until: float, missed: int) -> None:
    assert len(BEAT.judge(entries(BEAT.due(START)[0]), until, 0).missed) == missed
    assert BEAT.judge(entries(*BEAT.due(START + 50)), until, 0).count == 11


def test_what_fell_due_before_anybody_led_is_not_missed() -> None:
    led = replace(BEAT, since=START + 1)
    assert BEAT.due(START + 5) == [*BEAT.due(START), *led.due(START + 5)]


def test_entries_of_other_jobs_are_no_ticks() -> None:
    others = [Entry("id-1", None, USER, 1, "run-1"), Entry("id-2", None, USER, 1, None)]
    assert BEAT.ids(others) == []
