"""When schedules are due: by a clock in a zone, every so often, or once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from penstock.errors import UsageError
from penstock.schedules.expressions import Expression, expression
from penstock.schedules.model import utc_text
from penstock.schedules.zones import END, Zone, zone

#: The longest and shortest ``every``, in seconds.
MIN_EVERY, MAX_EVERY = 1, 366 * 86_400

_UNITS = (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True)
class Cron:
    """By a cron expression, read on the clocks of a zone. Raises ``UsageError`` for either that cannot be.

    A *fixed* time of day comes once on each of its days: one that the clocks skip comes at the end of the gap, one that
    they show twice comes the first time. An expression whose minute or hour begins with ``*`` comes whenever the clocks
    show it: not in the gap, and twice where they go back. Instants are from 1970 to 9997.
    """

    expression: str
    zone: str = "UTC"
    #: What the two say, found once and not compared.
    clock: tuple[Expression, Zone] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", (_expression(self.expression), zone(self.zone)))

    def after(self, instant: int) -> int | None:
        """The first instant after *instant*, None when there is none any more."""
        named, place = self.clock
        at = max(instant + 1, 0)
        while at < END:
            tile = place.tile(at)
            wall = named.at_or_after(_earliest(tile.start + tile.before, at, tile.start, tile.offset, named.fixed))
            if wall is None:
                return None
            if wall < tile.end + tile.offset:
                return _within(max(wall - tile.offset, tile.start))
            at = tile.end
        return None

    def before(self, instant: int) -> int | None:
        """The last instant before *instant*, None when there was none."""
        named, place = self.clock
        at = min(instant, END) - 1
        while at >= 0:
            tile = place.tile(at)
            wall = named.at_or_before(at + tile.offset)
            if wall is None:
                return None
            # Times of day within a gap belong to its end, those that come again belong to the tile before.
            if wall >= tile.start + (tile.before if named.fixed else tile.offset):
                return max(wall - tile.offset, tile.start)
            at = tile.start - 1
        return None

    @property
    def words(self) -> str:
        """When it is due, as people say it."""
        return f"{self.clock[0].words}, {self.zone}"


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many seconds of real time, *anchor* (seconds since 1970 UTC) being one of the instants."""

    seconds: int
    anchor: int = 0

    def __post_init__(self) -> None:
        if not MIN_EVERY <= self.seconds <= MAX_EVERY:
            raise UsageError(f"every {self.seconds} seconds: it takes from 1s to 366d; rarer ones are for cron")

    def after(self, instant: int) -> int | None:
        """The first instant after *instant*, None when there is none any more."""
        at = max(instant + 1, 0)
        return _within(at + (self.anchor - at) % self.seconds)

    def before(self, instant: int) -> int | None:
        """The last instant before *instant*, None when there was none."""
        at = min(instant, END) - 1
        return _within(at - (at - self.anchor) % self.seconds)

    @property
    def words(self) -> str:
        """When it is due, as people say it."""
        return f"Every {spell(self.seconds)}".replace("Every 1 ", "Every ")


@dataclass(frozen=True, slots=True)
class Once:
    """At one instant, in seconds since 1970 UTC."""

    instant: int

    def after(self, instant: int) -> int | None:
        """The instant, if it is after *instant*."""
        return self.instant if self.instant > instant else None

    def before(self, instant: int) -> int | None:
        """The instant, if it is before *instant*."""
        return self.instant if self.instant < instant else None

    @property
    def words(self) -> str:
        """When it is due, as people say it."""
        return f"Once, at {utc_text(self.instant)}"


def spell(seconds: int) -> str:
    """A length of time in words: ``1 hour 30 minutes``."""
    parts = []
    for unit, length in _UNITS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {unit}" + ("s" if count > 1 else ""))
    return " ".join(parts) or "0 seconds"


def _earliest(seam: int, at: int, start: int, offset: int, fixed: bool) -> int:
    """The first clock time that counts from the instant *at* on, in a tile before whose *start* clocks came to *seam*.

    At its start all times of day from the seam on count: those within a gap too, those that come again not.
    """
    if not fixed:
        return at + offset
    return seam if at == start else max(at + offset, seam)


def _within(instant: int) -> int | None:
    return instant if 0 <= instant < END else None


@lru_cache(maxsize=16_384)
def _expression(text: str) -> Expression:
    return expression(text)
