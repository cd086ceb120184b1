"""Which ticks are due: on time, missed, made up for; every instant is taken once, whatever the steps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.schedules.due import MAX_COUNTED, Agenda, Due, due, still_owed
from penstock.schedules.model import CatchUp, Schedule
from penstock.schedules.triggers import Cron, Every, Once

MINUTELY = Schedule("minutely", "email.tick", Every(60))
HOUR = 3600


def with_policy(catch_up: CatchUp, most: int = 100, grace: int = 60) -> Schedule:
    return Schedule(
        "hourly", "email.tick", Every(HOUR), catch_up=catch_up, max_catch_up=most, grace=timedelta(seconds=grace)
    )


def ticks(found: Iterable[Due]) -> list[tuple[str, int]]:
    return [(each.schedule.name, instant) for each in found for instant in each.ticks]


def test_what_is_due_is_after_the_last_and_not_after_now() -> None:
    assert due(MINUTELY, 60, 119).ticks == ()
    assert due(MINUTELY, 60, 120).ticks == (120,)
    assert due(MINUTELY, 59, 120).ticks == (60, 120)


@pytest.mark.parametrize(
    ("catch_up", "most", "expected", "missed", "newest"),
    [
        (CatchUp.NONE, 100, [], 5, 5 * HOUR),
        (CatchUp.LAST, 100, [5], 4, 4 * HOUR),
        (CatchUp.ALL, 100, [1, 2, 3, 4, 5], 0, 0),
        (CatchUp.ALL, 2, [4, 5], 3, 3 * HOUR),
    ],
)
def test_of_missed_ticks_those_are_made_up_for_that_the_schedule_says(
    catch_up: CatchUp, most: int, expected: list[int], missed: int, newest: int
) -> None:
    found = due(with_policy(catch_up, most), 10, 5 * HOUR + 1800)
    assert found.ticks == tuple(hour * HOUR for hour in expected)
    assert (found.missed, found.newest_missed) == (missed, newest)


def test_a_tick_within_the_grace_is_on_time_whatever_the_policy() -> None:
    assert due(with_policy(CatchUp.NONE), 10, HOUR + 60).ticks == (HOUR,)
    assert due(with_policy(CatchUp.NONE), 10, HOUR + 61).ticks == ()


def test_counting_what_was_missed_ends() -> None:
    secondly = Schedule("secondly", "email.tick", Every(1))
    assert due(secondly, 0, 10**9).missed == MAX_COUNTED


def test_a_refused_tick_is_owed_within_its_grace_and_then_by_the_policy() -> None:
    owed = (HOUR, 2 * HOUR)
    assert still_owed(with_policy(CatchUp.NONE), owed, 2 * HOUR + 30).ticks == (2 * HOUR,)
    assert still_owed(with_policy(CatchUp.NONE), owed, 3 * HOUR).missed == 2
    assert still_owed(with_policy(CatchUp.LAST), owed, 3 * HOUR) == Due(with_policy(CatchUp.LAST), (2 * HOUR,), 1, HOUR)
    assert still_owed(with_policy(CatchUp.ALL), owed, 30 * HOUR).ticks == owed


def test_schedules_of_one_trigger_come_together_and_disabled_ones_never() -> None:
    schedules = [
        Schedule("a", "email.tick", Cron("0 3 * * *", "Europe/Berlin")),
        Schedule("b", "email.tick", Cron("0 3 * * *", "Europe/Berlin")),
        Schedule("c", "email.tick", Cron("0 3 * * *", "Europe/Berlin"), enabled=False),
        Schedule("d", "email.tick", Once(5)),
    ]
    agenda = Agenda(schedules, 0)
    assert agenda.next == 5
    assert ticks(agenda.take(5)) == [("d", 5)]
    assert ticks(agenda.take(2 * HOUR)) == [("a", 2 * HOUR), ("b", 2 * HOUR)]


def test_an_agenda_of_what_is_over_is_empty() -> None:
    agenda = Agenda([Schedule("past", "email.tick", Once(5))], 5)
    assert agenda.next is None
    assert agenda.take(10**9) == []


@given(
    every=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    steps=st.lists(st.integers(0, 55), min_size=1, max_size=30),
)
def test_every_instant_is_taken_once_whatever_the_steps(every: list[int], steps: list[int]) -> None:
    schedules = [Schedule(f"s{number}", "email.tick", Every(seconds)) for number, seconds in enumerate(every)]
    agenda, now, taken = Agenda(schedules, 0), 0, []
    for step in steps:
        now += step
        taken += ticks(agenda.take(now))
    wanted = [(each.name, at) for each, n in zip(schedules, every, strict=True) for at in range(n, now + 1, n)]
    assert sorted(taken) == sorted(wanted)


@given(
    every=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    moves=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=10),
)
def test_an_agenda_that_moved_is_one_that_began_there(every: list[int], moves: list[tuple[int, int]]) -> None:
    schedules = [Schedule(f"s{number}", "email.tick", Every(seconds)) for number, seconds in enumerate(every)]
    schedules.append(Schedule("once", "email.tick", Once(150)))
    moved = Agenda(schedules, 0)
    for through, length in moves:
        moved.move(through)
        assert ticks(moved.take(through + length)) == ticks(Agenda(schedules, through).take(through + length))
