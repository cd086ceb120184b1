"""The schedules file as it is now: looked at again and again, and kept as it was while it cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.errors import ConfigError
from penstock.events import Events
from penstock.schedules.events import SchedulesRead, SchedulesRefused
from penstock.schedules.model import Schedule

Read = Callable[[Path], Sequence[Schedule]]

#: What tells that a file is another one: a mounted configuration is swapped by a link.
_Stamp = tuple[int, int, int]


class Watched:
    """The schedules of the file at *path*, by *read*. One event loop. Raises ``ConfigError`` when it cannot be used."""

    def __init__(self, path: Path, read: Read, events: Events) -> None:
        self._path = path
        self._read = read
        self._events = events
        self._stamp = _stamp(path)
        self.schedules: Sequence[Schedule] = read(path)

    def tell(self) -> None:
        """Tell those who listen by now which schedules there are."""
        self._events.emit(SchedulesRead(tuple(self.schedules)))

    async def poll(self) -> bool:
        """Look whether the file has changed, and take it if it can be used; whether there are other schedules now.

        Never raises: what is wrong with a changed file is told once, and the old schedules go on.
        """
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.schedules = await asyncio.to_thread(self._read, self._path)
        except ConfigError as error:
            self._events.emit(SchedulesRefused(str(error)))
            return False
        self.tell()
        return True


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
