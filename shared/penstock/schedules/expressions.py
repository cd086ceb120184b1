"""Cron expressions: which clock times they name. What instants those are is the trigger's to say."""

from __future__ import annotations

import calendar
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from penstock.errors import UsageError

if TYPE_CHECKING:
    from cronsim import CronSim

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

MAX_LENGTH = 500

_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
#: The same dates come back on the same weekdays after 40 years at the latest, across a year without a 29 February.
_MONTHS = 41 * 12
_SOME = datetime(2026, 1, 1, tzinfo=UTC)
_FIELDS = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31, L (the last) or LW (the last from Monday to Friday)",
    "month": "1 to 12 or JAN to DEC",
    "day of week": "0 to 7 (0 and 7 are Sunday) or SUN to SAT, 5L (the last Friday) or MON#1 (the first Monday)",
}


class Times:
    """Which seconds of a day an expression names."""

    def __init__(self, seconds: set[int], minutes: set[int], hours: set[int]) -> None:
        self._seconds = sorted(seconds)
        self._minutes = [60 * hour + minute for hour in sorted(hours) for minute in sorted(minutes)]
        self.first = self._minutes[0] * 60 + self._seconds[0]
        self.last = self._minutes[-1] * 60 + self._seconds[-1]

    def at_or_after(self, second: int) -> int | None:
        """The first one that is not before *second*."""
        minute, rest = divmod(second, 60)
        at = bisect_left(self._minutes, minute)
        if at < len(self._minutes) and self._minutes[at] == minute:
            if rest <= self._seconds[-1]:
                return minute * 60 + self._seconds[bisect_left(self._seconds, rest)]
            at += 1
        return self._minutes[at] * 60 + self._seconds[0] if at < len(self._minutes) else None

    def at_or_before(self, second: int) -> int | None:
        """The last one that is not after *second*."""
        minute, rest = divmod(second, 60)
        at = bisect_right(self._minutes, minute) - 1
        if at >= 0 and self._minutes[at] == minute:
            if rest >= self._seconds[0]:
                return minute * 60 + self._seconds[bisect_right(self._seconds, rest) - 1]
            at -= 1
        return self._minutes[at] * 60 + self._seconds[-1] if at >= 0 else None


class Days:
    """Which days an expression names, counted from 1 January 1970."""

    def __init__(self, parsed: CronSim, every: bool) -> None:
        self._parsed = parsed
        self._every = every
        self._found: dict[tuple[int, int, int], tuple[int, ...]] = {}

    def at_or_after(self, day: int) -> int | None:
        """The first one that is not before *day*; None when there never is one again."""
        if self._every:
            return day
        start = date.fromordinal(day + _EPOCH)
        days = self._of(start.year, start.month)
        if days and start.day <= days[-1]:
            return day - start.day + days[bisect_left(days, start.day)]
        for number in range(start.year * 12 + start.month, start.year * 12 + start.month + _MONTHS):
            year, month = number // 12, number % 12 + 1
            if days := self._of(year, month):
                return date(year, month, days[0]).toordinal() - _EPOCH
        return None

    def at_or_before(self, day: int) -> int | None:
        """The last one that is not after *day*; None when there never was one."""
        if self._every:
            return day
        start = date.fromordinal(day + _EPOCH)
        days = self._of(start.year, start.month)
        if days and start.day >= days[0]:
            return day - start.day + days[bisect_right(days, start.day) - 1]
        for number in range(start.year * 12 + start.month - 2, start.year * 12 + start.month - 2 - _MONTHS, -1):
            year, month = number // 12, number % 12 + 1
            if days := self._of(year, month):
                return date(year, month, days[-1]).toordinal() - _EPOCH
        return None

    def _of(self, year: int, month: int) -> tuple[int, ...]:
        """The days of a month. They depend on its first weekday and its length alone, so that few are ever sought."""
        if month not in self._parsed.months or year > 9999:
            return ()
        key = (month, *calendar.monthrange(year, month))
        found = self._found.get(key)
        if found is None:
            days = (date(year, month, day) for day in range(1, key[2] + 1))
            found = self._found[key] = tuple(day.day for day in days if self._parsed.match_day(day))
        return found


@dataclass(frozen=True, slots=True)
class Expression:
    """The clock times that an expression names, as seconds since 1970 on the clock's own face.

    *fixed*: they are times of day, of which each comes once a day whatever the clock does; others follow the clock.
    """

    text: str
    times: Times
    days: Days
    fixed: bool

    def at_or_after(self, wall: int) -> int | None:
        """The first clock time not before *wall*, or None."""
        day, second = divmod(wall, _DAY)
        found = self.days.at_or_after(day)
        if found == day:
            time = self.times.at_or_after(second)
            if time is not None:
                return day * _DAY + time
            found = self.days.at_or_after(day + 1)
        return None if found is None else found * _DAY + self.times.first

    def at_or_before(self, wall: int) -> int | None:
        """The last clock time not after *wall*, or None."""
        day, second = divmod(wall, _DAY)
        found = self.days.at_or_before(day)
        if found == day:
            time = self.times.at_or_before(second)
            if time is not None:
                return day * _DAY + time
            found = self.days.at_or_before(day - 1)
        return None if found is None else found * _DAY + self.times.last

    @property
    def words(self) -> str:
        """When that is, as people say it."""
        from cronsim.explain import Expression as Explained

        said = Explained(_parts(self.text.upper())).explain()
        return re.sub(r"(?<!1)([123])th\b", lambda found: found[1] + ("st", "nd", "rd")[int(found[1]) - 1], said)


def expression(text: str) -> Expression:
    """Read five or six fields (seconds first) or a macro. Raises ``UsageError`` that names every field that is wrong.

    One that can never come, such as 30 February, is refused. *fixed* as Debian's cron has it: neither hour nor minute
    nor, where there are six fields, second begins with ``*``.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"a cron expression of {len(text)} characters is longer than the {MAX_LENGTH} there may be")
    parts = _parts(_macro(text.strip()).upper())
    try:
        days = _days(*parts[3:])
        times = _times(*parts[:3])
    except UsageError:
        raise UsageError("; ".join(_problems(parts)) or _never(text)) from None
    if days.at_or_after(_SOME.toordinal() - _EPOCH) is None:
        raise UsageError(_never(text))
    return Expression(text, times, days, fixed=not any(part.startswith("*") for part in parts[:3]))


@lru_cache(maxsize=16_384)
def _times(second: str, minute: str, hour: str) -> Times:
    parsed = _parse(second, minute, hour, "*", "*", "*")
    return Times(parsed.seconds, parsed.minutes, parsed.hours)


@lru_cache(maxsize=16_384)
def _days(day: str, month: str, weekday: str) -> Days:
    return Days(_parse("0", "0", "0", day, month, weekday), every=(day, month, weekday) == ("*", "*", "*"))


def _parse(*parts: str) -> CronSim:
    from cronsim import CronSim, CronSimError

    try:
        return CronSim(" ".join(parts), _SOME)
    except (CronSimError, ValueError) as error:  # a number of thousands of digits is a ValueError
        raise UsageError(str(error)) from None


def _macro(text: str) -> str:
    if not text.startswith("@"):
        return text
    found = MACROS.get(text.lower())
    if found is None:
        hint = "; write every: 15m" if text.lower().startswith("@every") else f"; there are {', '.join(MACROS)}"
        raise UsageError(f"there is no {text!r:.40}{hint}")
    return found


def _parts(text: str) -> list[str]:
    """The six fields of an expression or macro."""
    parts = _macro(text).split()
    if len(parts) == 5:
        return ["0", *parts]
    if len(parts) != 6:
        year = "; years cannot be named, use starts and ends" if len(parts) == 7 else ""
        fields = "minute, hour, day of month, month, day of week"
        raise UsageError(f"{text!r:.60} has {len(parts)} of five fields ({fields}) or six (second first){year}")
    return parts


def _problems(parts: list[str]) -> Iterator[str]:
    """Say for each field by itself what is wrong with it."""
    for at, (name, takes) in enumerate(_FIELDS.items()):
        alone = ["*"] * 6
        alone[at] = parts[at]
        try:
            _parse(*alone)
        except UsageError:
            yield f"{name} {parts[at]!r:.40} cannot be read: it takes {takes}{_hint(parts[at])}"


def _hint(part: str) -> str:
    if "?" in part:
        return "; write * for any"
    low, _, high = part.partition("-")
    if high and not (low.isdigit() and high.isdigit() and int(low) <= int(high)):
        return "; ranges go up, so that 22-3 is written 22-23,0-3"
    return ", with commas, ranges such as 1-5 and steps such as */5"


def _never(text: str) -> str:
    return f"{text!r:.60} never comes: no month it names has a day it names"
