"""One run through all that expires: a batch of each in turn, with pauses, until nothing is left or time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.janitor.ports import Busy, Expiring, Problem

#: Seconds between two batches: as long as the last one took, within these, so that half of the time is the others'.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


@dataclass(slots=True)
class Swept:
    """What a run did: how many parts of each were deleted (or counted), what has more to delete, what is wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a run goes about it: what is old at *now* goes, if it is also older than *older_than*, *batch* at a time, for
    *budget* at most."""

    now: datetime
    older_than: timedelta
    batch: int
    budget: timedelta

    def before(self, expiring: Expiring) -> datetime:
        """The instant before which parts of *expiring* have expired."""
        return self.now - max(expiring.keep, self.older_than)


async def sweep(everything: Mapping[str, Expiring], terms: Terms) -> Swept:
    """Delete what has expired. What is wrong with one stops none of the others."""
    swept, until = Swept(), time.monotonic() + terms.budget.total_seconds()
    left = await _present(everything, swept)
    swept.counts = dict.fromkeys(left, 0)
    while left:  # once in any case: the smallest budget gets on, too
        for name in list(left):
            started = time.monotonic()
            if not await _batch(name, left[name], terms, swept):
                del left[name]
            await asyncio.sleep(min(max(time.monotonic() - started, SHORTEST_PAUSE), LONGEST_PAUSE))
        if time.monotonic() >= until:
            break
    swept.unfinished += left
    return swept


async def count(everything: Mapping[str, Expiring], terms: Terms) -> Swept:
    """Count what ``sweep`` would delete."""
    swept = Swept()
    for name, expiring in (await _present(everything, swept)).items():
        try:
            found = await expiring.count(terms.before(expiring))
        except Problem as error:
            swept.problems.append(str(error))
        except Busy:
            swept.unfinished.append(name)
        else:
            swept.counts |= {} if found is None else {name: found}
    return swept


async def _present(everything: Mapping[str, Expiring], swept: Swept) -> dict[str, Expiring]:
    found = {}
    for name, expiring in everything.items():
        try:
            if await expiring.present():
                found[name] = expiring
            else:
                swept.absent.append(name)
        except Problem as error:
            swept.problems.append(str(error))
        except Busy:
            swept.unfinished.append(name)
    return found


async def _batch(name: str, expiring: Expiring, terms: Terms, swept: Swept) -> bool:
    """Delete one batch; whether there may be another."""
    try:
        deleted = await expiring.delete(terms.before(expiring), terms.batch)
    except Problem as error:
        swept.problems.append(str(error))
        return False
    except Busy:
        swept.unfinished.append(name)
        return False
    swept.counts[name] += deleted
    return deleted == terms.batch
