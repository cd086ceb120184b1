"""When a cron expression comes, found out the slow way and by code of its own: what the schedules are checked against.

It reads expressions by itself and asks ``zoneinfo`` alone. ``walked`` looks at the clocks step by step, as somebody who
stands before them would; ``dated`` goes through the calendar and asks which instant each clock time is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

#: An instant (seconds since 1970 UTC) and what clocks show at it (seconds since 1970 on their own faces).
Shown = tuple[int, int]


@dataclass(frozen=True)
class Named:
    """The clock times that an expression names. *fixed*: each of them comes once, whatever the clocks do.

    *weekdays* are pairs of a day (0 is Sunday) and which of its kind in the month: 0 each, -1 the last.
    """

    times: frozenset[int]
    months: frozenset[int]
    days: frozenset[int | str]
    weekdays: frozenset[tuple[int, int]]
    either: bool
    fixed: bool

    def has(self, wall: int) -> bool:
        """Whether it names the clock time *wall*."""
        return wall % DAY in self.times and self.on(wall // DAY)

    def on(self, number: int) -> bool:
        """Whether it names the day of that number, counted from 1 January 1970."""
        month, called, nth = _calendar(number)
        by_day, by_weekday = not self.days.isdisjoint(called), not self.weekdays.isdisjoint(nth)
        return month in self.months and (by_day or by_weekday if self.either else by_day and by_weekday)


def read(text: str) -> Named:
    """Read five fields, six (seconds first) or a macro; one that is wrong raises ``ValueError``."""
    parts = _MACROS.get(text, text).upper().split()
    second, minute, hour, day, month, weekday = parts if len(parts) == 6 else ("0", *parts)
    clock = (_numbers(hour, 0, 23), _numbers(minute, 0, 59), _numbers(second, 0, 59))
    return Named(
        frozenset(h * 3600 + m * 60 + s for h in clock[0] for m in clock[1] for s in clock[2]),
        frozenset(_numbers(month, 1, 12, _MONTHS, first=1)),
        frozenset(each for part in day.split(",") for each in ([part] if "L" in part else _numbers(part, 1, 31))),
        frozenset(pair for part in weekday.split(",") for pair in _weekdays(part)),
        either=not day.startswith("*") and not weekday.startswith("*"),
        fixed=not any(part.startswith("*") for part in (second, minute, hour)),
    )


def walk(zone: str, start: int, end: int, step: int = 60) -> list[Shown]:
    """What clocks in *zone* show from *start* on to before *end*, every so many seconds."""
    info = ZoneInfo(zone)
    return [(at, at + _offset(at, info)) for at in range(start, end, step)]


def walked(named: Named, shown: list[Shown]) -> list[int]:
    """When *named* comes while clocks show what they do. The first of *shown* is there to be gone on from.

    What follows the clock comes whenever they show it. A fixed time comes as soon as they show it or, where they leave
    it out, anything later, and never again.
    """
    if not named.fixed:
        return [at for at, wall in shown[1:] if named.has(wall)]
    step = shown[1][0] - shown[0][0]
    latest, found = shown[0][1], []
    for at, wall in shown[1:]:
        if any(named.has(each) for each in range(latest + step, wall + 1, step)):
            found.append(at)
        latest = max(latest, wall)
    return found


def dated(named: Named, zone: str, start: date, end: date) -> list[int]:
    """When the fixed times of *named* come, for the days from *start* on to before *end* of *zone*'s calendar."""
    info = ZoneInfo(zone)
    numbers = range(start.toordinal() - _EPOCH, end.toordinal() - _EPOCH)
    return sorted({_first(n * DAY + time, info) for n in numbers if named.on(n) for time in named.times})


def changes(zone: str, start: int, end: int) -> Iterator[int]:
    """The instants at which clocks in *zone* are set, one a day at most, to the quarter of an hour as all of today."""
    info = ZoneInfo(zone)
    for day in range(start, end, DAY):
        before = _offset(day, info)
        if before != _offset(day + DAY, info):
            yield next(at for at in range(day, day + DAY + 1, 900) if _offset(at, info) != before)


def _first(wall: int, info: ZoneInfo) -> int:
    """The first instant at which clocks show *wall*, or the end of the gap that *wall* is in."""
    shown = datetime.fromtimestamp(wall, UTC).replace(tzinfo=info)
    at = round(shown.timestamp())
    if at + _offset(at, info) == wall:
        return at
    earlier = round(shown.replace(fold=1).timestamp())  # so it is within a gap
    before = _offset(earlier, info)
    return next(each for each in range(earlier, at + 1) if _offset(each, info) != before)


def _offset(at: int, info: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(at, info).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


@lru_cache(maxsize=10_000)
def _calendar(number: int) -> tuple[int, set[int | str], set[tuple[int, int]]]:
    """The month of a day, what a field for days may call it, and what one for weekdays may."""
    day = date.fromordinal(number + _EPOCH)
    later = [day + timedelta(days=more) for more in range(1, 8)]
    weekday = day.isoweekday() % 7
    called: set[int | str] = {day.day}
    nth = {(weekday, 0), (weekday, (day.day + 6) // 7)}
    if later[0].month != day.month:
        called.add("L")
    if day.weekday() < 5 and all(each.month != day.month or each.weekday() >= 5 for each in later[:3]):
        called.add("LW")
    if later[6].month != day.month:
        nth.add((weekday, -1))
    return day.month, called, nth


def _weekdays(part: str) -> Iterator[tuple[int, int]]:
    weekday, _, nth = part.partition("#")
    last = weekday.endswith("L")
    for number in _numbers(weekday.removesuffix("L"), 0, 7, _WEEKDAYS):
        yield number % 7, -1 if last else int(nth or 0)


def _numbers(text: str, low: int, high: int, names: Iterable[str] = (), first: int = 0) -> set[int]:
    """The numbers that a field names: with commas, ranges, steps and names, of which the first is that number."""
    known = {name: str(number) for number, name in enumerate(names, first)}
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        one, _, other = span.partition("-")
        begin = low if one == "*" else int(known.get(one, one))
        last = int(known.get(other, other)) if other else high if one == "*" or step else begin
        found |= set(range(begin, last + 1, int(step or 1)))
    return found
