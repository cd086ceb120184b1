"""How many calls a destination gets a second: a token bucket for each, and a line for those that find it empty."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.pacing.lines import LONGEST, join

#: Calls that may be made at once after a pause, as seconds of the rate.
BURST = 1.0

#: Destinations that are remembered before those are looked for of which there is nothing to remember.
_MANY = 10_000

_UNITS = {"s": (1, "a second"), "m": (60, "a minute"), "h": (3600, "an hour")}
_RATE = re.compile(r"([1-9]\d{0,5})/([smh])")


def per_second(text: str) -> float:
    """``10/s``, ``30/m`` or ``1000/h`` as calls a second. Raises ``ValueError``."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.40} is no rate such as 10/s, 30/m or 1000/h")
    return int(found[1]) / _UNITS[found[2]][0]


def written(rate: float) -> str:
    """*rate* in words as it was written, or the same in a smaller unit."""
    told = [(rate * size, unit) for size, unit in _UNITS.values()]
    number, unit = next((each for each in told if round(each[0] % 1, 6) in (0, 1)), told[-1])
    return f"{number:g} {unit}"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a destination stands, in seconds of one clock: until when the calls so far have *used* its rate up (GCRA),
    and the last instant that was promised to a call that waits, the end of the *line*."""

    used: float = 0.0
    line: float = 0.0


def decide(standing: Standing, now: float, rate: float, *, returning: bool, roll: float) -> tuple[Standing, float]:
    """Whether a call may be made *now* at *rate* a second: where its destination stands after that, and how long to
    wait (0: go).

    One that comes for the first time stands behind all that wait. One that is *returning* goes as soon as the bucket
    lets it; the instants are as far apart as the rate has it, so that is when it comes, but for a little.
    """
    # Further ahead is what a clock left behind that was set back since, or a lower rate.
    used, line = min(standing.used, now + BURST + 1 / rate), min(standing.line, now + LONGEST)
    earliest = max(now, used - BURST)
    if earliest <= now and (returning or line <= now):
        return Standing(max(used, now) + 1 / rate, line), 0.0
    line, wait = join(line, now, earliest, 1 / rate, roll)
    return Standing(used, line), wait


class Budgets(Protocol):
    """How many calls a destination gets a second, over all who share them. Safe to share by tasks."""

    async def ask(self, name: str, rate: float, *, returning: bool) -> float:
        """For how many seconds a call to *name* has to wait: 0 is now, and it is counted among the *rate* a second.

        *returning*: it has waited before; the others queue up behind those who do. Raises ``StoreUnavailable``.
        """
        ...


class OwnBudgets:
    """See ``Budgets``; of this process alone. *now* gives seconds of a clock that never jumps."""

    def __init__(self, now: Callable[[], float] = time.monotonic, roll: Callable[[], float] = random.random) -> None:
        self._now = now
        self._roll = roll
        self._standings: dict[str, Standing] = {}
        self._most = _MANY

    async def ask(self, name: str, rate: float, *, returning: bool) -> float:
        """See ``Budgets.ask``."""
        now = self._now()
        before = self._standings.get(name, Standing())
        self._standings[name], wait = decide(before, now, rate, returning=returning, roll=self._roll())
        if len(self._standings) > self._most:
            self._forget(now)
        return wait

    def _forget(self, now: float) -> None:
        """Keep only what differs from never having been asked."""
        self._standings = {name: found for name, found in self._standings.items() if max(found.used, found.line) > now}
        self._most = max(_MANY, 2 * len(self._standings))
