"""A run under way: jobs and trouble in, three crashes in the middle, and an account at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from penstock import AsyncPublisher, PenstockError
from penstock.urls import BrokerUrl
from services.demo import effects, order_book, trouble
from services.demo.accounting import Account, Letter, account
from services.demo.credits import Credits, send_credits
from services.demo.crew import Member
from services.demo.effects import Book
from services.demo.eye import Eye
from services.demo.heartbeat import Ticks
from services.demo.ledger import Entry, Ledger
from services.demo.places import RunPlace
from services.demo.screen import Screen, Snapshot
from services.demo.system import DEAD, SHORT_WAITS, WORK, System

#: How long the workers may take to end, and how long redeliveries of crashed ones are still waited for (seconds).
DRAIN_WITHIN = 10.0
SETTLE_WITHIN = 8.0

#: Looks at empty queues until they count as empty: between two of them a message is nowhere for a moment.
_QUIET_LOOKS = 3

_TICK = 0.1
_LOOK_EVERY = 1.0
_ORDERS_TAKEN = (0, 6)  # 6: some lines were no orders, as there are


class DemoFailed(PenstockError):
    """A part of the demo did not do what it is for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of: *jobs* from the orders service, *outage* seconds of 451, *rounds* of bad messages, and
    jobs of credits: gifts (*adds*), *transfers*, and *overdrafts* that end as dead letters.

    After *patience* seconds the account is made as it stands; with what follows, a run stays below 90 s.
    """

    jobs: int = 2000
    outage: float = 8.0
    patience: float = 65.0
    rounds: int = 4
    adds: int = 336
    transfers: int = 60
    overdrafts: int = 4

    @property
    def orders(self) -> int:
        """Orders in the CSV: each is a mail, and each region is a report."""
        return self.jobs - len(order_book.REGIONS)


@dataclass(slots=True)
class Run:
    """One run."""

    plan: Plan
    place: RunPlace
    url: BrokerUrl
    system: System
    eye: Eye
    screen: Screen
    mails: Book
    receipts: Book
    #: Letters that lay there before, of earlier runs.
    before: int = 0
    #: Jobs of credits that the broker confirmed.
    credited: list[Entry] = field(default_factory=list)
    #: Bad messages that the broker confirmed.
    bad: list[str] = field(default_factory=list)
    #: How often the leading scheduler was killed.
    kills: int = 0
    _looked: float = 0.0

    async def play(self) -> tuple[Account, list[Letter]]:
        """Submit, crash, wait until every job has ended, stop the workers and account. Raises ``PenstockError``."""
        self.before = await self.eye.ready(DEAD)
        planned = Credits.made_up(self.place.run, self.plan.adds, self.plan.transfers, self.plan.overdrafts)
        crashes = (
            self._crash_a_mailer(),
            self._crash_a_credits_worker(planned.booked),
            self._crash_the_leading_scheduler(),
        )
        work = (self._submit(), self._make_trouble(), self._give_credits(planned))
        acts = [asyncio.create_task(act) for act in (*work, *crashes)]
        try:
            await self._watch(acts, time.monotonic() + self.plan.patience)
        finally:
            for act in acts:
                act.cancel()
            await asyncio.gather(*acts, return_exceptions=True)
        ended, until = time.time(), time.monotonic() + SETTLE_WITHIN
        await self.system.stop_schedulers(SETTLE_WITHIN)
        await self._settle(until)
        ticks = await self._ticks(ended, until)
        await self.system.stop_workers(DRAIN_WITHIN)
        found, letters = await self._account()
        return replace(found, ticks=ticks), letters

    async def _submit(self) -> None:
        program = ("-m", "services.orders", str(self.place.orders), "--run", self.place.run)
        code, log = await self.system.crew.run("orders", *program, "--receipts", str(self.place.receipts))
        for line in log.read_text().splitlines():
            self.screen.say(f"orders: {line}")
        if code not in _ORDERS_TAKEN:
            raise DemoFailed(f"the orders service ended with exit code {code}: see {log}")

    async def _make_trouble(self) -> None:
        """Send a round of bad messages every second, so that they come between the good ones."""
        async with AsyncPublisher(self.url, app_id="demo") as publisher:
            self.screen.say("malformed JSON, broken schemas and unknown kinds are being sent between the good jobs")
            for _ in range(self.plan.rounds):
                self.bad += await trouble.send(publisher, list(trouble.bad_messages(1)), self.place.run)
                await asyncio.sleep(1)

    async def _give_credits(self, planned: Credits) -> None:
        """Open the accounts; when they are open send the other jobs of credits, some of them more than once."""
        async with AsyncPublisher(self.url, app_id="demo") as publisher:
            self.credited += await send_credits(publisher, planned.opening)
            while len(set(self._booked())) < len(planned.opening):  # noqa: ASYNC110 - other processes write the ledger
                await asyncio.sleep(_TICK)
            self.screen.say(f"{len(planned)} jobs of credits are being sent, some of them twice or three times")
            self.credited += await send_credits(publisher, planned.others)

    async def _crash_a_mailer(self) -> None:
        """When a third of the mails are out, kill a mailer."""
        while len(self.mails.ids()) < self.plan.orders // 3:  # noqa: ASYNC110 - another process writes the book
            await asyncio.sleep(_TICK / 4)
        self._say_who_died(*await self.system.crash_a_mailer())

    async def _crash_a_credits_worker(self, booked: int) -> None:
        """When a third of the *booked* jobs are, kill a credits worker."""
        while len(set(self._booked())) < booked // 3:  # noqa: ASYNC110 - other processes write the ledger
            await asyncio.sleep(_TICK / 4)
        self._say_who_died(*await self.system.crash_a_credits_worker())

    async def _crash_the_leading_scheduler(self) -> None:
        """When the schedule has ticked, kill the scheduler that leads, and see it tick on."""
        if self.system.heartbeat is None:
            self.screen.say("other schedulers lead on this broker: no schedule is shown")
            return
        await self._more_ticks_than(0)
        self._say_who_died(*await self.system.crash_the_leading_scheduler(self.eye))
        self.kills += 1
        await self._more_ticks_than(len(self._ticked()))

    async def _more_ticks_than(self, count: int) -> None:
        while len(self._ticked()) <= count:  # noqa: ASYNC110 - other processes write the ledger
            await asyncio.sleep(_TICK)

    async def _ticks(self, ended: float, until: float) -> Ticks | None:
        """What became of the ticks that were due when all had *ended*; the last one may still run."""
        if self.system.heartbeat is None:
            return None
        while (found := self.system.heartbeat.judge(self._ledger(), ended, self.kills)).missed:
            if time.monotonic() > until:
                break
            await asyncio.sleep(_TICK)
        return found

    def _say_who_died(self, victim: Member, successor: Member) -> None:
        self.screen.say(
            f"{victim.name} (pid {victim.pid}) killed with SIGKILL and started again as pid {successor.pid}"
        )

    async def _watch(self, acts: list[asyncio.Task[None]], until: float) -> None:
        """Show how far the run is until all acts are over and every job has ended. Raises what an act raised."""
        while time.monotonic() < until:
            self.system.crew.check()
            for act in acts:
                if act.done():
                    act.result()
            now = await self._snapshot()
            self.screen.show(now)
            if all(act.done() for act in acts) and now.ended >= now.published and await self._nothing_is_open():
                return
            await asyncio.sleep(_TICK)

    async def _snapshot(self) -> Snapshot:
        reports = effects.reports(self.place.reports)
        # Letters are only counted here; which of them are of this run is for the account to say.
        dead = max(0, await self.eye.ready(DEAD) - self.before)
        booked = len(set(self._booked()))
        return Snapshot(len(self._published()), len(set(self.mails.ids())), len(reports), booked, dead)

    async def _nothing_is_open(self) -> bool:
        if time.monotonic() < self._looked + _LOOK_EVERY:
            return False
        found, _ = await self._account()
        self._looked = time.monotonic()
        return not found.lost

    async def _settle(self, until: float) -> None:
        """Wait a moment for empty queues: what the killed workers held comes once more, and would count as doubled."""
        quiet = 0
        while time.monotonic() < until and quiet < _QUIET_LOOKS:
            quiet = 0 if await self.eye.ready((*WORK, *SHORT_WAITS)) else quiet + 1
            await asyncio.sleep(_TICK)

    async def _account(self) -> tuple[Account, list[Letter]]:
        letters = await self.eye.letters(DEAD, self.place.run)
        done = [*self.mails.ids(), *effects.reports(self.place.reports)]
        ledger = Ledger.read(self.place.store)
        ids = [letter.id for letter in letters]
        found = account(self._published(), done, ids, ledger.ids(self.place.run), ledger.faults(self.credited))
        return found, letters

    def _booked(self) -> list[str]:
        return Ledger.read(self.place.store).ids(self.place.run)

    def _ticked(self) -> set[str]:
        """The ticks of the schedule that are booked."""
        return set() if self.system.heartbeat is None else set(self.system.heartbeat.ids(self._ledger()))

    def _ledger(self) -> Sequence[Entry]:
        return Ledger.read(self.place.store).entries

    def _published(self) -> set[str]:
        return {*self.receipts.ids(), *(entry.id for entry in self.credited), *self.bad}
