"""Time zones as tiles, stretches of one offset: clock times turn into instants, and back, by adding."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from penstock.errors import UsageError

_DAY = 86_400
#: Tiles are found and kept for about a year at a time.
_PERIOD = 366 * _DAY

#: The first instant of the year 9998: nothing is due from here on, so that no clock time passes the last one there is.
END = int(datetime(9998, 1, 1, tzinfo=UTC).timestamp())


class Tile(NamedTuple):
    """The instants from *start* to before *end*, all *offset* seconds ahead of UTC; before *start* it was *before*.

    Where the two are equal nothing happens: the tile begins there because the one before it was long enough.
    """

    start: int
    end: int
    offset: int
    before: int


class Zone:
    """A time zone by its name in the IANA database. Keeps what it found out; safe to share between threads."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.info = ZoneInfo(key)
        self._periods: dict[int, tuple[Tile, ...]] = {}

    def tile(self, instant: int) -> Tile:
        """The tile that *instant* (seconds since 1970 UTC, before ``END``) is in."""
        number = instant // _PERIOD
        tiles = self._periods.get(number)
        if tiles is None:
            tiles = self._periods[number] = self._tiles(number * _PERIOD)
        for tile in tiles:
            if instant < tile.end:
                break
        return tile

    def local(self, instant: int) -> datetime:
        """What clocks in the zone show at *instant*."""
        return datetime.fromtimestamp(instant, self.info)

    def first_of(self, wall: int) -> int:
        """The first instant at which clocks there show *wall* (seconds since 1970 on their own faces) or later."""
        tile = self.tile(max(0, wall - 2 * _DAY))
        while wall >= tile.end + tile.offset:
            tile = self.tile(tile.end)
        return max(wall - tile.offset, tile.start)

    def _tiles(self, start: int) -> tuple[Tile, ...]:
        """The tiles of one period. Looks once a day: no zone has changed its mind within one since 1970."""
        tiles = []
        before = offset = _offset(self.info, start - 1)
        began, looked = start, start - 1
        for look in (*range(start, start + _PERIOD, _DAY), start + _PERIOD - 1):
            found = _offset(self.info, look)
            if found != offset:
                changed = self._change(looked, look, offset)
                if changed > began:
                    tiles.append(Tile(began, changed, offset, before))
                    before, began = offset, changed
                offset = found
            looked = look
        return (*tiles, Tile(began, start + _PERIOD, offset, before))

    def _change(self, low: int, high: int, offset: int) -> int:
        """The first instant after *low* at which *offset* no longer holds; at *high* it does not."""
        while high - low > 1:
            middle = (low + high) // 2
            if _offset(self.info, middle) == offset:
                low = middle
            else:
                high = middle
        return high


@lru_cache(maxsize=1024)
def zone(key: str) -> Zone:
    """The zone called *key*, the same for everybody. Raises ``UsageError`` where there is none, with a near one."""
    if key == "localtime" or key.startswith(("right/", "posix")):
        raise UsageError(f"{key!r} is not a zone's name but this machine's own file; name the place: Europe/Berlin")
    try:
        return Zone(key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"there is no zone {key!r:.60}; {_hint(key)}") from None


def _offset(info: tzinfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, info).utcoffset()
    assert offset is not None  # every ZoneInfo knows it
    return offset.days * _DAY + offset.seconds


def _hint(key: str) -> str:
    if key.startswith(("+", "-")):
        return "a fixed offset is called Etc/GMT-2, which is two hours ahead of UTC (the sign is the other way round)"
    names = {name.lower(): name for name in available_timezones()}
    near = difflib.get_close_matches(key.lower(), names, n=1)
    return f"did you mean {names[near[0]]}?" if near else "zones are named by place, such as Europe/Berlin, or UTC"
