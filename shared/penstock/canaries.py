"""Canaries: a few letters replayed first, and what became of them, before the others follow."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from penstock.claims import State
from penstock.dead_letters import DeadLetters
from penstock.letters import DeadLetter, Filter
from penstock.storing import Store

#: Seconds between two looks.
_STEP = 0.25


class Fate(StrEnum):
    """What became of a canary."""

    DONE = "done"
    DEAD = "died again"
    NOT_SEEN = "not seen again"
    UNDECIDED = "not ended yet"


@dataclass(slots=True)
class Verdict:
    """What became of each canary, by its job's id, and why those died that did."""

    fates: dict[str, Fate] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether the others may follow: no canary died again, and none that a store knows of is still under way."""
        return not {Fate.DEAD, Fate.UNDECIDED} & set(self.fates.values())

    @property
    def words(self) -> str:
        """How many of each, such as ``2 done, 1 died again``."""
        counts = [(fate, list(self.fates.values()).count(fate)) for fate in Fate]
        return ", ".join(f"{count} {fate}" for fate, count in counts if count)


class Canaries:
    """Waits for the letters of *queue* that were replayed to be done, or to come back.

    Where *store* remembers a job, its word counts: done, or not yet. Of the others it is known only whether they are
    back among the dead letters: those that are not within the wait are taken for good. One event loop.
    """

    def __init__(self, dead: DeadLetters, queue: str, letters: list[DeadLetter], store: Store | None = None) -> None:
        self._dead = dead
        self._queue = queue
        self._copies = {letter.id: letter.copy + 1 for letter in letters}
        self._store = store
        self._consumers = {queue.removesuffix(".dead"), queue.removesuffix(".dead").removeprefix("jobs.")}
        self._known: set[str] = set()
        self._verdict = Verdict(dict.fromkeys(self._copies, Fate.NOT_SEEN))

    async def judged(self, wait: timedelta) -> Verdict:
        """What became of them; returns when the first is back, when all are done, or after *wait*.

        Raises ``BrokerError`` and ``StoreUnavailable``.
        """
        seen = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait.total_seconds()):
                while self._verdict.good and not await self._all_done():
                    depth = await self._dead.depth(self._queue)
                    if depth > seen:
                        await self._look_for_dead()
                    seen = depth
                    await asyncio.sleep(_STEP)
        if Fate.NOT_SEEN in self._verdict.fates.values():
            await self._look_for_dead()
        for job_id in self._known:
            if self._verdict.fates[job_id] is Fate.NOT_SEEN:
                self._verdict.fates[job_id] = Fate.UNDECIDED
        return self._verdict

    async def _all_done(self) -> bool:
        if self._store is not None:
            for job_id, fate in self._verdict.fates.items():
                if fate is Fate.NOT_SEEN:
                    await self._ask(self._store, job_id)
        return all(fate is Fate.DONE for fate in self._verdict.fates.values())

    async def _ask(self, store: Store, job_id: str) -> None:
        for record in await store.records(job_id):
            if self._queue.endswith(".dead") and record.consumer not in self._consumers:
                continue
            self._known.add(job_id)
            if record.state in (State.DONE, State.SKIPPED):
                self._verdict.fates[job_id] = Fate.DONE
            elif record.state is State.DEAD and record.copy >= self._copies[job_id]:
                self._verdict.fates[job_id] = Fate.DEAD

    async def _look_for_dead(self) -> None:
        where = Filter(ids=frozenset(self._copies))
        async with contextlib.aclosing(self._dead.look(self._queue, where)) as letters:
            async for letter in letters:
                if letter.copy > self._copies[letter.id]:
                    self._verdict.fates[letter.id] = Fate.DEAD
                    self._verdict.errors[letter.id] = letter.error
