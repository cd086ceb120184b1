"""When triggers are due: by clocks, by elapsed time, once; within bounds, and the same from wherever one looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.schedules.due import Agenda, due
from penstock.schedules.model import CatchUp, Schedule, Trigger
from penstock.schedules.ticks import tick
from penstock.schedules.triggers import MAX_EVERY, Cron, Every, Once
from penstock.schedules.zones import END

HOUR, DAY = 3600, 86_400

#: The night of 29 March 2026 in Berlin is an hour shorter, that of 25 October an hour longer.
SPRING = int(datetime(2026, 3, 29, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
AUTUMN = int(datetime(2026, 10, 25, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
LENGTHS = [(SPRING, 23), (AUTUMN, 25), (SPRING + 2 * DAY, 24)]

ZONES = (
    "UTC",
    "Africa/Casablanca",
    "America/Havana",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
)
CRONS = (
    "30 2 * * *",
    "*/15 * * * *",
    "0 0 * * *",
    "0 * * * *",
    "*/20 1-2 * * *",
    "15,45 0-3 * * SUN",
    "0 0 L * *",
    "0 0 29 2 *",
    "30 59 23 31 12 *",
    "*/7 30 0-3 1-7 * *",
)
INSTANTS = st.integers(0, 2_500_000_000)
TRIGGERS = st.one_of(
    st.builds(Cron, st.sampled_from(CRONS), st.sampled_from(ZONES)),
    st.builds(Every, st.integers(1, MAX_EVERY), st.integers(-(10**10), 10**10)),
    st.builds(Once, INSTANTS),
)


def window(trigger: Trigger | Schedule, after: int, until: int, most: int = 200) -> Sequence[int]:
    """What is due after *after* and not after *until*, the first of it."""
    found: list[int] = []
    at = trigger.after(after)
    while at is not None and at <= until and len(found) < most:
        found.append(at)
        at = trigger.after(at)
    return found


@pytest.mark.parametrize(("midnight", "hours"), LENGTHS)
def test_an_interval_goes_by_elapsed_time_and_knows_no_clocks(midnight: int, hours: int) -> None:
    hourly = window(Every(HOUR), midnight - 1, midnight + hours * HOUR - 1)
    assert hourly == [midnight + number * HOUR for number in range(hours)]
    daily = window(Every(DAY, anchor=midnight - 10 * DAY + 5 * HOUR), midnight - DAY, midnight + 3 * DAY)
    assert {later - earlier for earlier, later in pairwise(daily)} == {DAY}


@pytest.mark.parametrize(("midnight", "hours"), LENGTHS)
def test_on_a_day_of_any_length_a_fixed_time_comes_once_and_an_hourly_one_each_hour(midnight: int, hours: int) -> None:
    end = midnight + hours * HOUR - 1
    for time in ("30 2", "0 2", "59 2", "0 0", "59 23", "0 3"):
        assert len(window(Cron(f"{time} * * *", "Europe/Berlin"), midnight - 1, end)) == 1
    assert len(window(Cron("0 * * * *", "Europe/Berlin"), midnight - 1, end)) == hours
    assert len(window(Cron("*/15 * * * *", "Europe/Berlin"), midnight - 1, end)) == 4 * hours


def test_an_anchor_is_one_of_the_instants_wherever_it_lies() -> None:
    for anchor in (5, 5 - 900 * 10**6, 5 + 900 * 10**6):
        assert Every(900, anchor).after(899) == 905
        assert Every(900, anchor).before(905) == 5
    assert Every(DAY, 10**11).after(0) == 10**11 % DAY


def test_once_is_once() -> None:
    assert window(Once(1000), 0, 10**9) == [1000]
    assert (Once(1000).after(999), Once(1000).after(1000)) == (1000, None)
    assert (Once(1000).before(1001), Once(1000).before(1000)) == (1000, None)


def test_starts_and_ends_are_both_included() -> None:
    bounded = Schedule("bounded", "email.tick", Every(10), starts=20, ends=40)
    assert window(bounded, 0, 100) == [20, 30, 40]
    assert [bounded.before(at) for at in (100, 40, 21, 20)] == [40, 30, 20, None]
    assert window(replace(bounded, starts=21, ends=39), 0, 100) == [30]
    assert window(replace(bounded, starts=31, ends=39), 0, 100) == []
    assert Agenda([replace(bounded, starts=31, ends=39)], 0).next is None


def test_time_ends_before_the_calendar_does() -> None:
    for trigger in (Every(1), Cron("* * * * * *", "Pacific/Apia"), Cron("@yearly", "America/St_Johns")):
        assert trigger.after(END) is None
        assert trigger.after(END - 1) is None
        last = trigger.before(END + 10**6)
        assert last is not None
        assert last < END
    assert Every(1).before(0) is None
    assert Cron("@yearly").before(0) is None


@pytest.mark.parametrize("seconds", [0, -1, MAX_EVERY + 1])
def test_an_interval_that_cannot_be_is_refused(seconds: int) -> None:
    with pytest.raises(UsageError, match="it takes from 1s to 366d"):
        Every(seconds)


@given(trigger=TRIGGERS, instant=INSTANTS)
def test_what_follows_is_later_what_came_is_earlier_and_nothing_lies_between(trigger: Trigger, instant: int) -> None:
    after, before = trigger.after(instant), trigger.before(instant)
    assert after is None or after > instant
    assert before is None or before < instant
    if after is not None:
        assert trigger.after(after - 1) == after
        assert trigger.before(after + 1) == after
        assert (trigger.before(after) or -1) <= instant
    if before is not None:
        assert trigger.before(before + 1) == before
        assert trigger.after(before - 1) == before
        assert (trigger.after(before) or END) >= instant


@given(trigger=TRIGGERS, start=INSTANTS, first=st.integers(0, 40 * DAY), second=st.integers(0, 40 * DAY))
def test_two_windows_hold_what_the_one_that_spans_both_does(
    trigger: Trigger, start: int, first: int, second: int
) -> None:
    parts = [*window(trigger, start, start + first), *window(trigger, start + first, start + first + second)]
    whole = window(trigger, start, start + first + second, most=400)
    assert whole == sorted(set(whole))
    assert whole[: len(parts)] == parts if len(parts) < 200 else whole[:200] == parts[:200]
    back: list[int] = []
    at = trigger.before(start + first + second + 1)
    while at is not None and at > start and len(back) < 50:
        back.append(at)
        at = trigger.before(at)
    if len(whole) < 400:
        assert whole[::-1][:50] == back


@given(
    trigger=TRIGGERS,
    start=INSTANTS,
    steps=st.lists(st.integers(0, 3 * DAY), min_size=1, max_size=12),
    catch_up=st.sampled_from(CatchUp),
    most=st.integers(1, 20),
    grace=st.integers(0, 2 * HOUR),
)
def test_however_time_goes_by_each_instant_is_published_or_missed_and_none_twice(
    trigger: Trigger, start: int, steps: list[int], catch_up: CatchUp, most: int, grace: int
) -> None:
    schedule = Schedule(
        "any", "email.tick", trigger, catch_up=catch_up, max_catch_up=most, grace=timedelta(seconds=grace)
    )
    agenda, now, published, missed = Agenda([schedule], start), start, list[int](), 0
    for step in steps:
        now += step
        for found in agenda.take(now):
            assert found.missed < 1000 or len(window(trigger, start, now, 2000)) > 1000
            published += found.ticks
            missed += found.missed
            late = [at for at in found.ticks if now - at > grace]
            assert len(late) <= {CatchUp.NONE: 0, CatchUp.LAST: 1, CatchUp.ALL: most}[catch_up]
    assert published == sorted(set(published))
    everything = window(trigger, start, now, most=1000)
    if len(everything) < 1000:
        assert set(published) <= set(everything)
        assert len(published) + missed == len(everything)


@given(schedule=st.builds(Schedule, st.just("x"), st.just("email.tick"), TRIGGERS), instant=INSTANTS)
def test_jitter_stays_within_its_bounds_and_is_the_same_for_the_same_instant(schedule: Schedule, instant: int) -> None:
    spread = replace(schedule, jitter=timedelta(seconds=90))
    delay = tick(spread, instant).delay or timedelta()
    assert timedelta() <= delay <= timedelta(seconds=90)
    assert tick(spread, instant).delay == tick(replace(spread, line=7), instant).delay
    assert tick(schedule, instant).delay is None


def test_jitter_differs_from_schedule_to_schedule_and_from_instant_to_instant() -> None:
    spread = Schedule("a", "email.tick", Every(60), jitter=timedelta(hours=1))
    assert len({tick(spread, at).delay for at in range(0, 6000, 60)}) > 50
    assert len({tick(replace(spread, name=f"s{number}"), 60).delay for number in range(100)}) > 50


@pytest.mark.parametrize(
    ("catch_up", "most", "expected"),
    [
        (CatchUp.NONE, 100, ["31T00:59"]),
        (CatchUp.LAST, 100, ["29T01:00", "31T00:59"]),
        (CatchUp.ALL, 100, ["27T01:30", "28T01:30", "29T01:00", "31T00:59"]),
        (CatchUp.ALL, 2, ["28T01:30", "29T01:00", "31T00:59"]),
    ],
)
def test_what_was_missed_over_a_night_on_which_clocks_were_set_is_made_up_for_once(
    catch_up: CatchUp, most: int, expected: list[str]
) -> None:
    """Three nights were missed; 02:30 of the third did not exist. Then one tick is within its grace."""
    nightly = Schedule(
        "nightly", "email.tick", Cron("30 2 * * *", "Europe/Berlin"), catch_up=catch_up, max_catch_up=most
    )
    once = Schedule("once", "email.tick", Once(int(datetime(2026, 3, 31, 0, 59, tzinfo=UTC).timestamp())))
    since, now = (int(datetime(2026, 3, day, 0, tzinfo=UTC).timestamp()) for day in (27, 30))
    found = [*due(nightly, since, now).ticks, *due(once, since, once.following(0, 1)[0] + 60).ticks]
    assert [f"{datetime.fromtimestamp(at, UTC):%dT%H:%M}" for at in found] == expected
