"""Schedulers that run inside a test, on a real broker, and a foreign look at what they publish."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any  # events of any type

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from penstock.brokers.pika_driver import PikaBroker
from penstock.clock import Clock
from penstock.events import Event
from penstock.ports import Link
from penstock.scheduler import Scheduler, Source
from penstock.schedules.events import LeadershipWon
from penstock.schedules.model import Schedule
from penstock.schedules.state import Command, State, read_state
from penstock.topology.names import COMMAND_KEY, SCHEDULER
from tests.support.waiting import eventually

PATIENCE = 20.0


class Listed:
    """A source of schedules that a test sets."""

    def __init__(self, *schedules: Schedule) -> None:
        self.schedules: Sequence[Schedule] = schedules
        self._fresh = False

    def set(self, *schedules: Schedule) -> None:
        self.schedules, self._fresh = schedules, True

    async def poll(self) -> bool:
        fresh, self._fresh = self._fresh, False
        return fresh


class Capturing:
    """A broker whose links a test can cut."""

    def __init__(self, url: str) -> None:
        self._broker = PikaBroker(url, heartbeat=timedelta(seconds=5))
        self.links: list[Link] = []

    async def connect(self, name: str) -> Link:
        link = await self._broker.connect(name)
        self.links.append(link)
        return link


class Running:
    """A scheduler that runs, what it told, and a way to cut its connection off."""

    def __init__(self, url: str, source: Source, clock: Clock | None, rewrite: float) -> None:
        self.broker = Capturing(url)
        self.scheduler = Scheduler(source, self.broker, clock=clock, rewrite=rewrite)
        self.events: list[Event] = []
        self._fresh = asyncio.Event()
        self.scheduler.events.subscribe(self._saw)

    def _saw(self, event: Event) -> None:
        self.events.append(event)
        self._fresh.set()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type, count: int = 1) -> list[Any]:
        """Wait until *count* events of a type were told."""
        async with asyncio.timeout(PATIENCE):
            while len(self.of(kind)) < count:
                self._fresh.clear()
                await self._fresh.wait()
        return self.of(kind)

    async def leads(self, times: int = 1) -> LeadershipWon:
        found: LeadershipWon = (await self.until(LeadershipWon, times))[-1]
        return found


@asynccontextmanager
async def scheduling(
    url: str, source: Source, *, clock: Clock | None = None, rewrite: float = 60.0
) -> AsyncIterator[Running]:
    """A scheduler of *source* for the length of the block."""
    running = Running(url, source, clock, rewrite)
    stop = asyncio.Event()
    task = asyncio.create_task(running.scheduler.run(stop=stop))
    try:
        yield running
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await task


def no_gap(ids: Collection[str], every: int = 1) -> bool:
    """Whether the *ids* of ticks of one schedule, of *every* so many seconds, leave out none from first to last."""
    instants = {datetime.fromisoformat(each.split(":", 2)[2]) for each in ids}
    return len(instants) == (max(instants) - min(instants)) // timedelta(seconds=every) + 1


def doubled(effects: Mapping[str, int]) -> list[tuple[str, datetime]]:
    """The (schedule, instant) that had more than one of *effects*, which are counted by job id."""
    times: Counter[tuple[str, datetime]] = Counter()
    for each, count in effects.items():
        _, name, instant = each.split(":", 2)
        times[name, datetime.fromisoformat(instant)] += count
    return [what for what, count in times.items() if count > 1]


async def ask(url: str, *commands: Command) -> None:
    """Ask the schedulers for something, as a foreign client."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(SCHEDULER, ensure=False)
        for command in commands:
            await exchange.publish(aio_pika.Message(command.message().body, type=COMMAND_KEY), COMMAND_KEY)


async def take(
    url: str, queue: str, count: int, within: float = PATIENCE
) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """The next *count* messages of *queue*."""
    taken: list[AbstractIncomingMessage] = []
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        source = await channel.get_queue(queue, ensure=False)
        async with asyncio.timeout(within), source.iterator() as messages:
            while len(taken) < count:
                message = await messages.__anext__()
                await message.ack()
                taken.append(message)
    return taken


async def drain(url: str, *queues: str) -> list[str]:
    """The ids of all that lies in *queues*, which are then empty."""
    ids = []
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for name in queues:
            queue = await channel.get_queue(name, ensure=False)
            while (message := await queue.get(fail=False, timeout=PATIENCE)) is not None:
                await message.ack()
                ids.append(message.message_id or "")
    return ids


async def left_in(url: str, queue: str) -> int:
    """How many messages are ready in *queue*: one with a single active consumer lets nobody look otherwise."""
    async with await aio_pika.connect(url) as connection:
        declared = await (await connection.channel()).declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def seen_state(url: str) -> State:
    """The state that anybody may look at, once there is one: somebody else may just have it in hand."""
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).get_queue("jobs.scheduler.view", ensure=False)
        message = await eventually(lambda: queue.get(fail=False, timeout=PATIENCE), within=PATIENCE)
        assert message is not None
        await message.nack(requeue=True)
    state = read_state(message.body)
    assert state is not None
    return state
