"""When each schedule ticks next and which are paused, as a leader knows it: found when somebody looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

from penstock.metrics.meters import MOST_SERIES, Family, Number, gauge
from penstock.schedules.model import Schedule

_Row = tuple[tuple[str, ...], float]


class Upcoming:
    """What a leader expects, of the first 2,000 schedules; nothing while another leads. Not locked: its owner is."""

    def __init__(self) -> None:
        self._leads = False
        self._paused: set[str] = set()
        self._schedules: Sequence[Schedule] = ()
        #: By name; looked up again once it is past.
        self._next: dict[str, int] = {}
        self.families = (
            _Live(
                gauge("penstock_schedule_next_timestamp_seconds", "When a schedule ticks next.", "schedule"),
                self._fires,
            ),
            _Live(gauge("penstock_schedule_paused", "1 for a schedule that is paused.", "schedule"), self._pauses),
        )

    def follow(self, schedules: Sequence[Schedule]) -> None:
        """Go by *schedules* from now on."""
        self._schedules = schedules[:MOST_SERIES]
        self._next.clear()

    def lead(self, paused: Collection[str]) -> None:
        """Show what is expected: the schedules that are *paused* are not."""
        self._leads, self._paused = True, set(paused)

    def stand_by(self) -> None:
        """Show nothing: somebody else leads."""
        self._leads = False

    def pause(self, name: str) -> None:
        """Expect nothing of a schedule."""
        self._paused.add(name)

    def resume(self, name: str) -> None:
        """Expect it again."""
        self._paused.discard(name)

    def _fires(self) -> Iterator[_Row]:
        now = int(time.time())
        for schedule in self._schedules if self._leads else ():
            if not schedule.enabled or schedule.name in self._paused:
                continue
            following = self._next.get(schedule.name)
            if following is None or following <= now:
                following = schedule.after(now)
            if following is not None:
                self._next[schedule.name] = following
                yield (schedule.name,), following

    def _pauses(self) -> Iterator[_Row]:
        for name in sorted(islice(self._paused, MOST_SERIES)) if self._leads else ():
            yield (name,), 1


class _Live(Family[Number]):
    """Series that are what *look* finds."""

    def __init__(self, like: Family[Number], look: Callable[[], Iterator[_Row]]) -> None:
        super().__init__(like.about, Number)
        self._look = look

    def series(self) -> list[tuple[tuple[str, ...], Number]]:
        """See ``Family.series``."""
        found = []
        for labels, value in self._look():
            number = Number()
            number.value = value
            found.append((labels, number))
        return found
