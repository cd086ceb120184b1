"""A gate before something that can be slow or in trouble: so many at once, nobody while it is shut, the others in line.

The breaker is M. Nygard's (Release It!, 2007): closed, open, half-open.
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

from services.mailer.lines import join, whole_seconds
from services.mailer.ports import Busy

#: How long a passage is taken to last before there was any (seconds), and the weight of the newest in the running mean.
_GUESS = 0.05
_WEIGHT = 1 / 8

#: How soon somebody who met a probe comes again, at most (seconds).
_PROBE = 10.0

_log = logging.getLogger("services.mailer")


class Verdict(Enum):
    """What the end of a passage says of what is behind the gate."""

    WORKS = "works"
    #: Once may be chance.
    FAILED = "failed"
    #: It wants to be left alone.
    DEFERS = "defers"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Terms:
    """How many there are that may come (*slots*), and how many of them may be behind the gate *at_once*; None: all.

    After how many *failures* in a row it is shut, and for how long the n-th time one after the other (*pause*); how far
    apart those in line come, at least (*spacing*, seconds).
    """

    slots: int
    failures: int
    pause: Callable[[int], timedelta]
    at_once: int | None = None
    spacing: float = 0.0


class Gate:
    """One gate, as one process sees it. For the tasks of one loop; *now* gives seconds of a clock that never jumps.

    *judge* says what an exception from a passage means.
    """

    def __init__(
        self,
        name: str,
        terms: Terms,
        judge: Callable[[BaseException], Verdict],
        now: Callable[[], float] = time.monotonic,
        roll: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._terms = terms
        self._verdict = judge
        self._now = now
        self._roll = roll
        self._inside: dict[object, float] = {}  # when each went in; the first has been there longest
        self._took = _GUESS
        self._line = float("-inf")  # the last instant that was promised to somebody who waits
        self._failures = 0
        self._shut: float | None = None  # until when; None: it is not
        self._times = 0  # that it was shut one after the other
        self._mended = float("-inf")  # from when on it is not one after the other any more
        self._probing = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember but how long passages take."""
        quiet = self._now() > max(self._line, self._mended)
        return quiet and not self._inside and self._shut is None and not self._failures

    @contextmanager
    def passing(self, *, returning: bool) -> Iterator[None]:
        """The one passage of the block, whose end is judged. Raises ``Busy`` when there must be none now, and in place
        of what ``DEFERS`` says.

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
        """Let somebody in, or raise ``Busy``; whether they probe what has been shut."""
        now = self._now()
        if self._shut is not None:
            if now < self._shut:
                raise self._busy("is left alone", self._shut)
            if self._probing:
                raise self._busy("is being tried", now + min(self._pause, _PROBE))
            self._probing = True
            return True
        if self._terms.at_once is not None and len(self._inside) >= self._terms.at_once:
            raise self._busy(f"gets no more than {self._terms.at_once} at once", now + self._spacing)
        if self._line > now and not returning:
            raise self._busy("keeps others waiting already", now)
        return False

    def _end(self, ticket: object, verdict: Verdict, probe: bool, error: BaseException | None = None) -> None:
        took = self._now() - self._inside.pop(ticket)
        if probe:
            self._probing = False
        if verdict is Verdict.NOTHING:
            return
        self._took += (took - self._took) * _WEIGHT
        # What began before it was shut says nothing new.
        new = probe or self._shut is None
        if verdict is Verdict.WORKS and new:
            self._works()
        elif verdict is Verdict.FAILED and new:
            self._failures += 1
            if probe or self._failures >= self._terms.failures:
                self._leave_alone(error)
        elif verdict is Verdict.DEFERS:
            if new:
                self._leave_alone(error)
            raise self._busy(f"is left alone: {error}", self._shut or 0.0) from error

    def _works(self) -> None:
        if self._shut is not None:
            _log.warning("%s takes mails again", self.name)
            self._mended = self._now() + self._pause
            self._line = self._now()  # those that wait come when they were told to; there is room for others before
        self._shut, self._failures = None, 0

    def _leave_alone(self, error: BaseException | None) -> None:
        now = self._now()
        if self._shut is None and now > self._mended:
            self._times = 0
        self._times += 1
        self._shut = now + self._pause
        _log.warning("%s is left alone for %g s: %s", self.name, self._pause, error)

    @property
    def _pause(self) -> float:
        return self._terms.pause(max(self._times, 1)).total_seconds()

    @property
    def _spacing(self) -> float:
        """How far apart those in line come: as fast as they are expected to get through."""
        oldest = self._now() - next(iter(self._inside.values())) if self._inside else 0.0
        side_by_side = min(self._terms.at_once or self._terms.slots, self._terms.slots)
        return max(self._terms.spacing, max(self._took, oldest) / side_by_side)

    def _busy(self, why: str, earliest: float) -> Busy:
        self._line, wait = join(self._line, self._now(), earliest, self._spacing, self._roll())
        return Busy(f"{self.name} {why}", whole_seconds(wait))
