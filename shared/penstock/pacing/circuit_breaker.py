"""A circuit breaker before what can be slow or in trouble: so many at once, none while it is open, others in line.

It is M. Nygard's (Release It!, 2007): closed, open, half-open.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from penstock.pacing.lines import LONGEST, Busy, join, whole_seconds

#: How long a call is taken to last before there was any (seconds), and the weight of the newest in the running mean.
_GUESS = 0.05
_WEIGHT = 1 / 8

#: How soon somebody who met a probe comes again, at most (seconds).
_PROBE = 10.0

_log = logging.getLogger("penstock.pacing")


class Verdict(Enum):
    """What the end of a call says of what is behind the breaker."""

    WORKS = "works"
    #: Once may be chance.
    FAILED = "failed"
    #: It wants to be left alone.
    DEFERS = "defers"
    NOTHING = "nothing"


#: Says what an exception from a call means; a time: it works, and asks to be left alone for so long.
Judge = Callable[[BaseException], Verdict | timedelta]


@dataclass(frozen=True, slots=True)
class Terms:
    """How many there are that may call (*slots*), how many of them *at_once* (None: all), and their *rate* a second
    (None: any).

    After how many *failures* in a row the breaker opens, and for how long the n-th time one after the other (*pause*).
    *relapses*: it is one after the other until all has worked for as long as the breaker was open, not only once.
    """

    slots: int
    failures: int
    pause: Callable[[int], timedelta]
    at_once: int | None = None
    rate: float | None = None
    relapses: bool = False


class CircuitBreaker:
    """One breaker, as one process sees it. For the tasks of one loop; *now* gives seconds of a clock that never jumps.

    It does not keep the rate, but lets those in line come no faster.
    """

    def __init__(
        self,
        name: str,
        terms: Terms,
        judge: Judge,
        now: Callable[[], float] = time.monotonic,
        roll: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.terms = terms
        self._verdict = judge
        self._now = now
        self._roll = roll
        self._inside: dict[object, float] = {}  # when each went in; the first has been there longest
        self._took = _GUESS
        self._line = float("-inf")  # the last instant that was promised to somebody who waits
        self._asked = float("-inf")  # until when it asked to be left alone
        self._failures = 0
        self._open: float | None = None  # until when; None: it is closed
        self._why = ""  # it was opened last
        self._times = 0  # that it was opened one after the other
        self._mended = float("-inf")  # from when on it is not one after the other any more
        self._probing = False
        self._wrong = float("-inf")  # until when failures count, should nobody call any more

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember but how long calls take, and what has long been past."""
        return not self._inside and self._now() > max(self._line, self._asked, self._mended, self._wrong)

    @contextmanager
    def passing(self, *, returning: bool) -> Iterator[None]:
        """The one call of the block, whose end is judged. Raises ``Busy`` when there must be none now, and in place of
        what ``DEFERS`` says.

        *returning*: who has waited before; the others queue up behind those who do.
        """
        probe = self._admit(returning=returning)
        ticket = object()
        self._inside[ticket] = self._now()
        try:
            yield
        except BaseException as error:
            self._end(ticket, self._verdict(error), probe, error)
            raise
        else:
            self._end(ticket, Verdict.WORKS, probe)

    def _admit(self, *, returning: bool) -> bool:
        """Let somebody in, or raise ``Busy``; whether they probe what was open."""
        now = self._now()
        if self._open is not None and now < self._open:
            raise self._left_alone()
        if now < self._asked:
            raise self._busy("asked for a pause", self._asked)
        if self._probing:
            raise self._busy("is being tried", now + min(self._pause, _PROBE))
        if self._open is not None:
            self._probing = True
            return True
        if self.terms.at_once is not None and len(self._inside) >= self.terms.at_once:
            raise self._busy(f"gets no more than {self.terms.at_once} at once", now + self._spacing)
        if self._line > now and not returning:
            raise self._busy("keeps others waiting already", now)
        return False

    def _end(
        self, ticket: object, verdict: Verdict | timedelta, probe: bool, error: BaseException | None = None
    ) -> None:
        took = self._now() - self._inside.pop(ticket)
        if probe:
            self._probing = False
        if verdict is Verdict.NOTHING:
            return
        self._took += (took - self._took) * _WEIGHT
        if isinstance(verdict, timedelta):
            self._asked = max(self._asked, self._now() + verdict.total_seconds())
            verdict = Verdict.WORKS
        if probe or self._open is None:  # what began before it was opened says nothing new
            self._learn(verdict, probe, error)
        if verdict is Verdict.DEFERS:
            raise self._left_alone() from error

    def _learn(self, verdict: Verdict, probe: bool, error: BaseException | None) -> None:
        if verdict is Verdict.WORKS:
            self._close()
            return
        self._failures += 1
        self._wrong = self._now() + LONGEST
        if verdict is Verdict.DEFERS or probe or self._failures >= self.terms.failures:
            self._leave_alone(error)

    def _close(self) -> None:
        if self._open is not None:
            _log.warning("%s works again", self.name)
            self._mended = self._now() + (self._pause if self.terms.relapses else 0.0)
            self._line = self._now()  # those that wait come when they were told to; there is room for others before
        self._open, self._failures, self._wrong = None, 0, float("-inf")

    def _leave_alone(self, error: BaseException | None) -> None:
        now = self._now()
        if self._open is None and now >= self._mended:
            self._times = 0
        self._times += 1
        self._open, self._why = now + self._pause, str(error)
        self._wrong = self._open + LONGEST
        _log.warning("%s is left alone for %g s: %s", self.name, self._pause, error)

    @property
    def _pause(self) -> float:
        return self.terms.pause(max(self._times, 1)).total_seconds()

    @property
    def _spacing(self) -> float:
        """How far apart those in line come: as fast as they are expected to get through."""
        oldest = self._now() - next(iter(self._inside.values())) if self._inside else 0.0
        side_by_side = min(self.terms.at_once or self.terms.slots, self.terms.slots)
        by_rate = 1 / self.terms.rate if self.terms.rate else 0.0
        return max(by_rate, max(self._took, oldest) / side_by_side)

    def _left_alone(self) -> Busy:
        return self._busy(f"is left alone: {self._why}", self._open or 0.0)

    def _busy(self, why: str, earliest: float) -> Busy:
        self._line, wait = join(self._line, self._now(), earliest, self._spacing, self._roll())
        return Busy(f"{self.name} {why}", after=whole_seconds(wait))
