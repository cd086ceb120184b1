"""Which ticks are due: the pure arithmetic of on time, missed and made up for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from penstock.schedules.model import CatchUp, Schedule, Trigger

#: Missed ticks are counted up to here: a schedule of every second that slept for a year is not walked through.
MAX_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Due:
    """The ticks of *schedule* to publish, oldest first (seconds since 1970 UTC), and how many are missed for good.

    *newest_missed* is the last one of those; *missed* stops counting at ``MAX_COUNTED``.
    """

    schedule: Schedule
    ticks: tuple[int, ...]
    missed: int = 0
    newest_missed: int = 0


def due(schedule: Schedule, through: int, now: int) -> Due:
    """What of *schedule* falls after *through* and not after *now*.

    A tick within the schedule's grace is always published; of those missed by more, what ``catch_up`` says.
    """
    edge = max(through, now - round(schedule.grace.total_seconds()) - 1)
    on_time = tuple(_between(schedule, edge, now))
    if edge <= through:
        return Due(schedule, on_time)
    late = _made_up_for(schedule, through, edge)
    oldest = late[0] if late else edge + 1
    missed = list(_backwards(schedule, oldest, through, MAX_COUNTED))
    return Due(schedule, (*late, *on_time), len(missed), missed[0] if missed else 0)


def still_owed(schedule: Schedule, instants: Sequence[int], now: int) -> Due:
    """What of the refused ticks at *instants* is still to be published, by the same rules as ``due``."""
    edge = now - round(schedule.grace.total_seconds()) - 1
    late = [instant for instant in sorted(instants) if instant <= edge]
    kept = late[len(late) - min(len(late), _made_up(schedule)) :]
    missed = late[: len(late) - len(kept)]
    on_time = [instant for instant in sorted(instants) if instant > edge]
    return Due(schedule, (*kept, *on_time), len(missed), missed[-1] if missed else 0)


class Agenda:
    """The schedules' ticks as they fall due, in order, from the one after *through* on. Not for sharing between tasks.

    Schedules that share trigger and bounds share the arithmetic: a hundred thousand cost no more than their triggers.
    """

    def __init__(self, schedules: Sequence[Schedule], through: int) -> None:
        #: All of them by name, also those that never come.
        self.schedules: dict[str, Schedule] = {schedule.name: schedule for schedule in schedules}
        groups: dict[tuple[Trigger, int | None, int | None], list[Schedule]] = {}
        for schedule in schedules:
            if schedule.enabled:
                groups.setdefault((schedule.trigger, schedule.starts, schedule.ends), []).append(schedule)
        self._groups = list(groups.values())
        self._begin(through)

    def _begin(self, through: int) -> None:
        self._through = through
        firsts = ((members[0].after(through), order, members) for order, members in enumerate(self._groups))
        self._heap = [_Group(first, order, members) for first, order, members in firsts if first is not None]
        heapq.heapify(self._heap)

    def move(self, through: int) -> None:
        """Take up after *through*, wherever it stood: forwards at the price of what is skipped."""
        if through < self._through:
            self._begin(through)
            return
        while self._heap and self._heap[0].next <= through:
            self._put(heapq.heappop(self._heap), through)
        self._through = through

    def clear(self) -> None:
        """Be of no use any more. Of many schedules the memory is given back in a while, in which other threads run."""
        self._heap.clear()
        while self.schedules:
            self.schedules.popitem()
        while self._groups:
            self._groups.pop()

    @property
    def next(self) -> int | None:
        """When something is due next, None when nothing ever is."""
        return self._heap[0].next if self._heap else None

    def take(self, now: int) -> list[Due]:
        """What is due by *now* and was not taken before."""
        found: list[Due] = []
        while self._heap and self._heap[0].next <= now:
            group = heapq.heappop(self._heap)
            found += self._of(group, now)
            self._put(group, now)
        self._through = max(self._through, now)
        return found

    def _put(self, group: _Group, through: int) -> None:
        """Put *group* where its first tick after *through* is."""
        following = group.members[0].after(through)
        if following is not None:
            heapq.heappush(self._heap, _Group(following, group.order, group.members))

    def _of(self, group: _Group, now: int) -> Iterator[Due]:
        following = group.members[0].after(group.next)
        alone = following is None or following > now
        for schedule in group.members:
            if alone and now - group.next <= schedule.grace.total_seconds():
                yield Due(schedule, (group.next,))
            else:
                yield due(schedule, self._through, now)


@dataclass(order=True, frozen=True, slots=True)
class _Group:
    next: int
    order: int
    members: list[Schedule] = field(compare=False)


def _made_up(schedule: Schedule) -> int:
    """How many missed ticks are made up for."""
    return {CatchUp.NONE: 0, CatchUp.LAST: 1, CatchUp.ALL: schedule.max_catch_up}[schedule.catch_up]


def _made_up_for(schedule: Schedule, through: int, edge: int) -> tuple[int, ...]:
    return tuple(_backwards(schedule, edge + 1, through, _made_up(schedule)))[::-1]


def _between(schedule: Schedule, after: int, until: int) -> Iterator[int]:
    return takewhile(lambda instant: instant <= until, _forwards(schedule, after))


def _forwards(schedule: Schedule, after: int) -> Iterator[int]:
    instant = schedule.after(after)
    while instant is not None:
        yield instant
        instant = schedule.after(instant)


def _backwards(schedule: Schedule, before: int, down_to: int, limit: int) -> Iterator[int]:
    """Up to *limit* instants before *before* and after *down_to*, the newest first."""
    instant = schedule.before(before)
    while instant is not None and instant > down_to and limit > 0:
        yield instant
        limit -= 1
        instant = schedule.before(instant)
