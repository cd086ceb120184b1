"""Places in a line: who has to wait gets an instant of their own, so that those who come again come one by one."""

from __future__ import annotations

import math
from datetime import timedelta

from penstock.errors import Snooze

#: The longest that anybody is told to wait (seconds). Who would have to wait longer comes again some time before, gets
#: no place in the line, and finds what is true by then.
LONGEST = 3600.0


class Busy(Snooze):
    """Whoever was to be called has to be left alone for *after*. A handler lets it pass: its job loses no attempt."""


def join(end: float, now: float, earliest: float, spacing: float, roll: float) -> tuple[float, float]:
    """Give one more a place in the line that ends at *end*: its new end, and how long that one has to wait.

    Nobody's instant is before *earliest*, and they are *spacing* apart. *roll* in [0, 1): the random part of the wait
    of those that have no place.
    """
    place = max(end + spacing, earliest)
    if place - now <= LONGEST:
        return place, place - now
    return end, LONGEST * (1 + roll) / 2


def whole_seconds(wait: float) -> timedelta:
    """*wait* rounded up: the broker rounds to the nearest second, and who comes too early has to wait once more."""
    return timedelta(seconds=max(1, math.ceil(wait)))
