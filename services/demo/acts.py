"""What happens in a run: jobs come in, bad messages between them, and processes are killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from penstock import AsyncPublisher, PenstockError
from penstock.urls import BrokerUrl
from services.demo import order_book, pictures, trouble
from services.demo.credits import Credits, send_credits
from services.demo.crew import Member
from services.demo.door import Door
from services.demo.effects import Book
from services.demo.errands import Errands
from services.demo.eye import Eye
from services.demo.ledger import Entry, Ledger
from services.demo.places import RunPlace
from services.demo.screen import Screen
from services.demo.system import CREDITS, MAILER, MEDIA, System

_TICK = 0.1
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
class Acts:
    """The acts of one run, and what came of them so far."""

    plan: Plan
    place: RunPlace
    url: BrokerUrl
    system: System
    eye: Eye
    door: Door
    screen: Screen
    mails: Book
    receipts: Book
    errands: Errands
    #: Jobs of credits that the door took.
    credited: list[Entry] = field(default_factory=list)
    #: Bad messages that the broker confirmed.
    bad: list[str] = field(default_factory=list)
    #: How often the leading scheduler was killed.
    kills: int = 0

    def all(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Every act, to be run side by side. Each raises ``PenstockError``."""
        planned = Credits.made_up(self.place.run, self.plan.adds, self.plan.transfers, self.plan.overdrafts)
        return (
            self._submit(),
            self._make_trouble(),
            self._give_credits(planned),
            self.errands.send(self.door),
            self._make_pictures(),
            self._crash_the_door(),
            self._crash_a_mailer(),
            self._crash_a_credits_worker(planned.booked),
            self._crash_the_leading_scheduler(),
        )

    def published(self) -> set[str]:
        """The ids of all jobs that were taken, by the door or past it."""
        return {*self.receipts.ids(), *(entry.id for entry in self.credited), *self.errands.ids, *self.bad}

    def booked(self) -> list[str]:
        """The ids of the run's entries in the ledger, as often as each is there."""
        return Ledger.read(self.place.store).ids(self.place.run)

    async def _submit(self) -> None:
        options = ("--run", self.place.run, "--door", self.door.url, "--receipts", str(self.place.receipts))
        code, log = await self.system.crew.run("orders", "-m", "services.orders", str(self.place.orders), *options)
        for line, same in groupby(log.read_text().splitlines()):
            times = "" if (count := len(list(same))) == 1 else f" ({count} times)"
            self.screen.say(f"orders: {line.removeprefix('orders: ')}{times}")
        if code not in _ORDERS_TAKEN:
            raise DemoFailed(f"the orders service ended with exit code {code}: see {log}")

    async def _make_trouble(self) -> None:
        """Show that the door takes no bad messages; then send a round of them past it every second, so that they come
        between the good jobs."""
        refused = await trouble.knock(self.door)
        self.screen.say(f"the door refused {refused} of 10 bad requests: malformed JSON, broken schemas, unknown kinds")
        self.screen.say("a careless producer sends such messages straight to the broker now, between the good jobs")
        async with AsyncPublisher(self.url, app_id="demo") as publisher:
            for _ in range(self.plan.rounds):
                self.bad += await trouble.send(publisher, list(trouble.bad_messages(1)), self.place.run)
                await asyncio.sleep(1)

    async def _give_credits(self, planned: Credits) -> None:
        """Open the accounts; when they are open hand in the other jobs of credits, some of them more than once."""
        self.credited += await send_credits(self.door, planned.opening)
        await _until(lambda: len(set(self.booked())) >= len(planned.opening))
        self.screen.say(f"{len(planned)} jobs of credits are being handed in, some of them twice or three times")
        self.credited += await send_credits(self.door, planned.others)

    async def _make_pictures(self) -> None:
        if MEDIA not in self.system.families:
            self.screen.say("without pictures and videos: there is no ffmpeg here")
            return
        await asyncio.to_thread(pictures.make, self.place.media / "source")
        await self.errands.send_pictures(self.door)

    async def _crash_the_door(self) -> None:
        """When the first orders are in, kill the door: it forgets what it took, and its customers ask again."""
        await _until(lambda: bool(self.receipts.ids()))
        self._say_who_died(*await self.system.crash_the_door())

    async def _crash_a_mailer(self) -> None:
        """When a third of the mails are out, kill a mailer."""
        await _until(lambda: len(self.mails.ids()) >= self.plan.orders // 3)
        self._say_who_died(*await self.system.crash_a_worker(MAILER))

    async def _crash_a_credits_worker(self, booked: int) -> None:
        """When a third of the *booked* jobs are, kill a credits worker."""
        await _until(lambda: len(set(self.booked())) >= booked // 3)
        self._say_who_died(*await self.system.crash_a_worker(CREDITS))

    async def _crash_the_leading_scheduler(self) -> None:
        """When the schedule has ticked, kill the scheduler that leads, and see it tick on."""
        if self.system.heartbeat is None:
            self.screen.say("other schedulers lead on this broker: no schedule is shown")
            return
        await _until(lambda: len(self._ticked()) > 0)
        self._say_who_died(*await self.system.crash_the_leading_scheduler(self.eye))
        self.kills += 1
        before = len(self._ticked())
        await _until(lambda: len(self._ticked()) > before)

    def _ticked(self) -> set[str]:
        """The ticks of the schedule that are booked."""
        assert self.system.heartbeat is not None
        return set(self.system.heartbeat.ids(Ledger.read(self.place.store).entries))

    def _say_who_died(self, victim: Member, successor: Member) -> None:
        self.screen.say(
            f"{victim.name} (pid {victim.pid}) killed with SIGKILL and started again as pid {successor.pid}"
        )


async def _until(seen: Callable[[], bool]) -> None:
    """Look every now and then, for other processes write what is *seen*; whoever runs the acts bounds the time."""
    while not seen():  # noqa: ASYNC110
        await asyncio.sleep(_TICK / 4)
