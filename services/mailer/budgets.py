"""How many mails a domain gets a second: a bucket, and a line for those that find it empty."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.mailer.lines import join

#: Mails that may go at once after a pause, as seconds of the rate.
BURST = 1.0

#: Domains that are remembered before those are looked for of which there is nothing to remember.
_MANY = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a domain stands, in seconds of one clock: until when the mails so far have *used* its rate up (GCRA), and
    the last instant that was promised to a mail that waits, the end of the *line*."""

    used: float = 0.0
    line: float = 0.0


def decide(standing: Standing, now: float, rate: float, *, returning: bool, roll: float) -> tuple[Standing, float]:
    """Whether a mail may go *now* at *rate* a second: where the domain stands after that, and how long to wait (0: go).

    One that comes for the first time stands behind all that wait. One that is *returning* goes as soon as the bucket
    lets it; the instants are as far apart as the rate has it, so that is when it comes, but for a little.
    """
    earliest = max(now, standing.used - BURST)
    if earliest <= now and (returning or standing.line <= now):
        return Standing(max(standing.used, now) + 1 / rate, standing.line), 0.0
    line, wait = join(standing.line, now, earliest, 1 / rate, roll)
    return Standing(standing.used, line), wait


class OwnBudgets:
    """See ``Budgets``; of this process alone. *now* gives seconds of a clock that never jumps."""

    def __init__(self, now: Callable[[], float] = time.monotonic, roll: Callable[[], float] = random.random) -> None:
        self._now = now
        self._roll = roll
        self._standings: dict[str, Standing] = {}
        self._most = _MANY

    async def ask(self, domain: str, rate: float, *, returning: bool) -> float:
        """See ``Budgets.ask``."""
        now = self._now()
        before = self._standings.get(domain, Standing())
        self._standings[domain], wait = decide(before, now, rate, returning=returning, roll=self._roll())
        if len(self._standings) > self._most:
            self._forget(now)
        return wait

    def _forget(self, now: float) -> None:
        """Keep only what differs from never having been asked."""
        self._standings = {
            domain: found for domain, found in self._standings.items() if max(found.used, found.line) > now
        }
        self._most = max(_MANY, 2 * len(self._standings))
