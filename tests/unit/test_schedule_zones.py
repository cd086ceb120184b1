"""Cron expressions on the clocks of twenty zones over ten years, instant by instant, against others who know the time.

The first two judges are of our own making and know no more than ``zoneinfo`` (``tests.support.cron_oracle``), the third
is croniter.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

from penstock.schedules.expressions import MACROS
from penstock.schedules.triggers import Cron
from tests.support.cron_oracle import DAY, changes, dated, read, walk, walked

#: Chosen for what their clocks do.
ZONES = {
    "UTC": "nothing",
    "Africa/Cairo": "DST since 2023, from midnight and until midnight",
    "Africa/Casablanca": "an hour back for each Ramadan",
    "America/Havana": "the first hour of a day is left out, and shown twice",
    "America/New_York": "DST west of Greenwich",
    "America/Santiago": "from midnight of the 24 hour clock, in the southern summer",
    "America/Sao_Paulo": "no DST since 2019",
    "America/Scoresbysund": "in March 2024 its old time became that of its summers",
    "America/St_Johns": "half an hour off the others",
    "Antarctica/Troll": "DST of two hours",
    "Asia/Almaty": "an hour back for good at the end of 29 February 2024, a leap day of 25 hours",
    "Asia/Beirut": "from midnight and until midnight",
    "Asia/Gaza": "around Ramadan, by tables",
    "Asia/Kathmandu": "three quarters of an hour off the others",
    "Asia/Kolkata": "half an hour off the others",
    "Asia/Tehran": "no DST since 2022",
    "Australia/Lord_Howe": "DST of half an hour",
    "Europe/Berlin": "the example of all others",
    "Europe/Dublin": "DST in winter, of minus one hour",
    "Pacific/Apia": "left out a day, in 2011",
    "Pacific/Chatham": "three quarters of an hour off the others, with DST",
}

#: Fixed times: each comes once on each of its days. All are multiples of five minutes.
FIXED = (
    "30 2 * * *",
    "0 8 * * MON-FRI",
    "@weekly",
    "@monthly",
    "0 12 29 2 *",
    "30 1 31 * *",
    "0 2 L * *",
    "0 3 LW * *",
    "0 1 * * SUN#2",
    "45 2 * MAR,APR,SEP,OCT 7L",
    "55 23 31 12 *",
    "0 0 1,15 * FRI",
    "0 30 0 1-7 */2 *",
)
#: These too, but they come too often to be asked for ten years.
OFTEN = ("@daily", "15,45 0-1 * * *", "0 0-23 * * *")
#: What follows the clock: whenever it is shown.
SHOWN = ("@hourly", "*/15 * * * *", "30 */2 * * *", "*/20 1-2 * * *", "5 * L * *", "*/30 * * * SUN")

HOUR = 3600
SINCE, UNTIL = date(2024, 1, 1), date(2034, 1, 1)


def instant(text: str | date) -> int:
    return int(datetime.fromisoformat(f"{text}").replace(tzinfo=UTC).timestamp())


def ours(expression: str, zone: str, start: int, end: int) -> list[int]:
    """What comes from *start* on to before *end*."""
    trigger, found = Cron(expression, zone), []
    at = trigger.after(start - 1)
    while at is not None and at < end:
        found.append(at)
        at = trigger.after(at)
    return found


def backwards(expression: str, zone: str, start: int, end: int) -> list[int]:
    """The same, from the other end."""
    trigger, found = Cron(expression, zone), []
    at = trigger.before(end)
    while at is not None and at >= start:
        found.append(at)
        at = trigger.before(at)
    return found[::-1]


def midnights() -> Iterator[int]:
    """Some at which no clock is set, among them those after leap days."""
    yield from (instant(date(year, 3, 1)) for year in range(2024, 2034, 4))
    yield from range(366 * DAY * 55, instant(UNTIL), 366 * DAY)


@pytest.mark.parametrize("zone", ZONES)
def test_fixed_times_come_once_a_day_for_ten_years(zone: str) -> None:
    """Through the calendar: which instant is this clock time?"""
    start, end = instant(SINCE + timedelta(days=2)), instant(UNTIL - timedelta(days=2))
    for expression in FIXED:
        expected = [at for at in dated(read(expression), zone, SINCE, UNTIL) if start <= at < end]
        assert ours(expression, zone, start, end) == expected, expression


@pytest.mark.parametrize("zone", ZONES)
def test_around_each_change_all_comes_when_clocks_show_it(zone: str) -> None:
    """Through the minutes: what does the clock show now?"""
    named = {expression: read(expression) for expression in (*FIXED, *OFTEN, *SHOWN)}
    for middle in (*changes(zone, instant(SINCE), instant(UNTIL)), *midnights()):
        shown = walk(zone, middle - 5 * HOUR, middle + 5 * HOUR, step=300)
        start, end = shown[1][0], shown[-1][0] + 1
        for expression, meant in named.items():
            expected = walked(meant, shown)
            assert ours(expression, zone, start, end) == expected, (expression, middle)
            assert backwards(expression, zone, start, end) == expected, (expression, middle)


@pytest.mark.parametrize("zone", ZONES)
def test_around_each_change_of_a_year_seconds_come_when_clocks_show_them(zone: str) -> None:
    for middle in changes(zone, instant(SINCE), instant(SINCE) + 366 * DAY):
        shown = walk(zone, middle - HOUR, middle + HOUR, step=1)
        for expression in ("15,45 30 0-3 * * *", "59 59 * * * *", "*/20 * * * * *", "7 0/30 0-23 * * *"):
            expected = walked(read(expression), shown)
            assert ours(expression, zone, shown[1][0], shown[-1][0] + 1) == expected, (expression, middle)


@pytest.mark.parametrize(
    ("zone", "expression", "day", "expected"),
    [
        # 02:30 does not exist: it comes at 03:00, the end of the gap.
        ("Europe/Berlin", "30 2 * * *", "2026-03-29", "29T01:00"),
        # 02:30 is shown twice: it comes the first time.
        ("Europe/Berlin", "30 2 * * *", "2026-10-25", "25T00:30"),
        # Two times in one gap have one end, and come once.
        ("Europe/Berlin", "15,45 2 * * *", "2026-03-29", "29T01:00"),
        # So do one in the gap and the one that is its end.
        ("Europe/Berlin", "0 2,3 * * *", "2026-03-29", "29T01:00"),
        # Hours written out are fixed times: the second 02:00 is not another one.
        ("Europe/Berlin", "0 1-3 * * *", "2026-10-25", "24T23:00 25T00:00 25T02:00"),
        # A minute that begins with * follows the clock: nothing in the gap, everything again in the overlap.
        ("Europe/Berlin", "*/30 2 * * *", "2026-03-29", ""),
        ("Europe/Berlin", "*/30 2 * * *", "2026-10-25", "25T00:00 25T00:30 25T01:00 25T01:30"),
        # So does an hour that begins with *.
        ("Europe/Berlin", "0 */12 * * *", "2026-10-25", "24T22:00 25T11:00"),
        ("Europe/Berlin", "30 */2 25 10,11 *", "2026-10-25", "24T22:30 25T00:30 25T01:30 " + " ".join(
            f"25T{hour:02}:30" for hour in range(3, 23, 2)
        )),
        # Clocks go from 02:00 to 02:30, and back from 02:00 to 01:30.
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-04", "03T15:30"),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-05", "04T14:45"),
        ("Australia/Lord_Howe", "*/15 1 * * *", "2026-04-05", "04T14:00 04T14:15 04T14:30 04T14:45 04T15:00 04T15:15"),
        # The day begins at 01:00.
        ("America/Havana", "@daily", "2026-03-08", "08T05:00"),
        ("Asia/Beirut", "@daily", "2026-03-29", "28T22:00"),
        ("America/Sao_Paulo", "30 0 * * *", "2018-11-04", "04T03:00"),
        # So does a month.
        ("America/Asuncion", "@monthly", "2017-10-01", "01T04:00"),
        # The day begins twice.
        ("America/Havana", "@daily", "2026-11-01", "01T04:00"),
        # The last hour of the day is shown twice.
        ("Asia/Beirut", "30 23 * * *", "2026-10-24", "24T20:30"),
        ("America/Sao_Paulo", "30 23 * * *", "2018-02-17", "18T01:30"),
        # Clocks go from 01:00 to 03:00.
        ("Antarctica/Troll", "0 1,2 * * *", "2026-03-29", "29T01:00"),
        ("Antarctica/Troll", "30 1,2 * * *", "2026-10-25", "24T23:30 25T00:30"),
        # Irish standard time is that of the summer; clocks know nothing of it.
        ("Europe/Dublin", "30 1 * * *", "2026-03-29", "29T01:00"),
        ("Europe/Dublin", "30 1 * * *", "2026-10-25", "25T00:30"),
        # An hour back for Ramadan.
        ("Africa/Casablanca", "30 2 * * *", "2026-02-15", "15T01:30"),
        # The 30 December was left out as a whole: what was meant for it comes when the 31st begins.
        ("Pacific/Apia", "0 12 30 12 *", "2011-12-31", "30T10:00"),
        ("Pacific/Apia", "0 0,12 * * *", "2011-12-31", "30T10:00 30T22:00"),
        # A leap day of 25 hours.
        ("Asia/Almaty", "30 23 29 2 *", "2024-02-29", "29T17:30"),
        ("Asia/Kathmandu", "0 12 29 2 *", "2028-02-29", "29T06:15"),
    ],
)  # fmt: skip
def test_a_day_on_which_clocks_are_set(zone: str, expression: str, day: str, expected: str) -> None:
    """In UTC, without the month."""
    midnight = datetime.fromisoformat(day)
    start, end = ((midnight + timedelta(days=more)).replace(tzinfo=ZoneInfo(zone)).timestamp() for more in (0, 1))
    found = ours(expression, zone, round(start), round(end))
    assert " ".join(f"{datetime.fromtimestamp(at, UTC):%dT%H:%M}" for at in found) == expected


def test_there_is_no_leap_day_in_2100() -> None:
    [before, after] = Cron("0 0 29 2 *").after(instant("2096-01-01")), Cron("0 0 29 2 *").after(instant("2096-03-01"))
    assert (before, after) == (instant("2096-02-29"), instant("2104-02-29"))


def test_each_macro_means_its_expression() -> None:
    start, end = instant(SINCE), instant(SINCE) + 800 * DAY
    for macro in MACROS:
        assert ours(macro, "Europe/Berlin", start, end) == ours(MACROS[macro], "Europe/Berlin", start, end)
        named = read(macro)
        if named.fixed:
            days = (SINCE, SINCE + timedelta(days=801))
            assert ours(macro, "UTC", start, end) == [at for at in dated(named, "UTC", *days) if at < end]


def croniters(expression: str, zone: str, start: int, end: int) -> Iterator[int]:
    """What croniter finds from *start* on to before *end*; it writes ``7L`` as ``L0``."""
    before = datetime.fromtimestamp(start - 1, ZoneInfo(zone))
    found = croniter(expression.replace("7L", "L0"), before, second_at_beginning=True)
    while (at := round(found.get_next(datetime).timestamp())) < end:
        yield at


@pytest.mark.parametrize("zone", ZONES)
def test_where_clocks_are_set_croniter_differs_for_three_reasons(zone: str) -> None:
    """It goes by the clock's face alone.

    It runs fixed times that are shown twice both times (of Troll's two hours only some): ours come once, a digest must
    not be sent twice in a night.
    It moves some that follow the clock out of a gap to its end: ours leave them out, an hourly job runs within the hour
    anyway. Of Lord Howe's half hour that is shown again it leaves out 01:40, though not 01:45.
    """
    for middle in changes(zone, instant(SINCE), instant(SINCE) + 3 * 366 * DAY):
        start, end = middle - 4 * HOUR, middle + 4 * HOUR
        [(_, before), (_, after)] = walk(zone, middle - 300, middle + 1, step=300)
        again = range(middle, middle + before + 300 - after, 300)
        for expression in ("30 2 * * *", "@daily", "15,45 0-1 * * *", *SHOWN[:4]):
            named, first = read(expression), set(ours(expression, zone, start, end))
            theirs = set(croniters(expression, zone, start, end))
            if named.fixed:
                twice = {at for at in again if named.has(after + at - middle)}
                assert theirs - first == (twice & theirs if zone == "Antarctica/Troll" else twice), (expression, middle)
            else:
                assert theirs - first <= ({middle} if after > before + 300 else set()), (expression, middle)
            odd = (zone, expression) == ("Australia/Lord_Howe", "*/20 1-2 * * *") and len(again) > 0
            assert first - theirs == ({middle + 600} if odd else set()), (expression, middle)


@pytest.mark.parametrize("expression", [each for each in FIXED if "LW" not in each])  # which croniter does not know
def test_croniter_knows_the_same_days(expression: str) -> None:
    start, end = instant(SINCE), instant(UNTIL) if "* * *" not in expression else instant(SINCE) + 400 * DAY
    assert list(croniters(expression, "UTC", start, end)) == ours(expression, "UTC", start, end)
