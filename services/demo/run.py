"""A run under way: its acts are played until every job has ended, and then an account is made."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from services.demo import effects
from services.demo.accounting import Account, Letter, account
from services.demo.acts import Acts
from services.demo.heartbeat import Ticks
from services.demo.ledger import Ledger
from services.demo.screen import Snapshot
from services.demo.system import AUDIT, DEAD, SHORT_WAITS

#: How long the workers may take to end, and how long redeliveries of crashed ones are still waited for (seconds).
DRAIN_WITHIN = 10.0
SETTLE_WITHIN = 8.0

#: Looks at empty queues until they count as empty: between two of them a message is nowhere for a moment.
_QUIET_LOOKS = 3

_TICK = 0.1
_LOOK_EVERY = 1.0


@dataclass(slots=True)
class Run:
    """One run."""

    acts: Acts
    #: Letters that lay there before, of earlier runs.
    before: int = 0
    _looked: float = 0.0

    async def play(self) -> tuple[Account, list[Letter]]:
        """Play the acts, wait until every job has ended, stop the workers and account. Raises ``PenstockError``."""
        system, patience = self.acts.system, self.acts.plan.patience
        self.before = await self.acts.eye.ready(DEAD)
        acts = [asyncio.create_task(act) for act in self.acts.all()]
        try:
            await self._watch(acts, time.monotonic() + patience)
        finally:
            for act in acts:
                act.cancel()
            await asyncio.gather(*acts, return_exceptions=True)
        ended, until = time.time(), time.monotonic() + SETTLE_WITHIN
        await system.stop_schedulers(SETTLE_WITHIN)
        self.acts.screen.say("waiting for what the killed workers had in hand: it comes once more")
        await self._settle(until)
        ticks = await self._ticks(ended, until)
        await system.stop_workers(DRAIN_WITHIN)
        found, letters = await self._account()
        faults = (*found.faults, *self._left_out())
        return replace(found, ticks=ticks, faults=faults), letters

    def _left_out(self) -> list[str]:
        """What the audit should have recorded and has not; told on the screen, if there is an audit."""
        if AUDIT not in self.acts.system.families:
            return []
        recorded, due = effects.recorded(self.acts.place.store), self.acts.published() - set(self.acts.bad)
        self.acts.screen.say(
            f"the audit has recorded {len(due & recorded)} of {len(due)} jobs that the door took, without arguments"
        )
        return [f"{len(due - recorded)} jobs are not in the audit"] if due - recorded else []

    async def _watch(self, acts: list[asyncio.Task[None]], until: float) -> None:
        """Show how far the run is until all acts are over and every job has ended. Raises what an act raised."""
        while time.monotonic() < until:
            self.acts.system.crew.check()
            for act in acts:
                if act.done():
                    act.result()
            now = await self._snapshot()
            self.acts.screen.show(now)
            if all(act.done() for act in acts) and now.ended >= now.published and await self._nothing_is_open():
                return
            await asyncio.sleep(_TICK)

    async def _snapshot(self) -> Snapshot:
        acts = self.acts
        reports = effects.reports(acts.place.reports)
        # Letters are only counted here; which of them are of this run is for the account to say.
        dead = max(0, await acts.eye.ready(DEAD) - self.before)
        booked, mails = len(set(acts.booked())), len(set(acts.mails.ids()))
        others = len(await acts.errands.done(acts.door))
        return Snapshot(len(acts.published()), mails, len(reports), booked, dead, others)

    async def _nothing_is_open(self) -> bool:
        if time.monotonic() < self._looked + _LOOK_EVERY:
            return False
        found, _ = await self._account()
        self._looked = time.monotonic()
        return not (found.lost or self.acts.errands.faults())

    async def _settle(self, until: float) -> None:
        """Wait a moment for empty queues: what the killed workers held comes once more, and would count as doubled."""
        quiet = 0
        while time.monotonic() < until and quiet < _QUIET_LOOKS:
            quiet = 0 if await self.acts.eye.ready((*self.acts.system.work, *SHORT_WAITS)) else quiet + 1
            await asyncio.sleep(_TICK)

    async def _ticks(self, ended: float, until: float) -> Ticks | None:
        """What became of the ticks that were due when all had *ended*; the last one may still run."""
        heartbeat, store = self.acts.system.heartbeat, self.acts.place.store
        if heartbeat is None:
            return None
        while (found := heartbeat.judge(Ledger.read(store).entries, ended, self.acts.kills)).missed:
            if time.monotonic() > until:
                break
            await asyncio.sleep(_TICK)
        return found

    async def _account(self) -> tuple[Account, list[Letter]]:
        acts = self.acts
        letters = await acts.eye.letters(DEAD, acts.place.run)
        ledger = Ledger.read(acts.place.store)
        done = [*acts.mails.ids(), *effects.reports(acts.place.reports), *await acts.errands.done(acts.door)]
        faults = [*ledger.faults(acts.credited), *acts.errands.faults()]
        ids = [letter.id for letter in letters]
        return account(acts.published(), done, ids, ledger.ids(acts.place.run), faults), letters
