"""The relay: takes what waits in an outbox to the broker, in order of insertion per kind, and marks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta

from penstock.claiming import persistently
from penstock.clock import Clock, SystemClock
from penstock.errors import ConfigError, ConnectionLost, PenstockError, StoreUnavailable
from penstock.events import (
    DrainStarted,
    Events,
    OutboxBacklog,
    Relayed,
    RelayParked,
    RelayPutOff,
    StoreAnswered,
    StoreLost,
    StoreOpened,
)
from penstock.failpoints import reach
from penstock.message import MAX_BODY
from penstock.ports import Broker
from penstock.publishing import WINDOW, Outgoing, Packer, Publishing
from penstock.reconnecting import CONNECT_TIMEOUT, Reconnecting
from penstock.relay_rules import Rests, Sorted, packed, sort, untraced
from penstock.relaying import Outbox, Waiting
from penstock.sending import Sender
from penstock.tasks import ended

#: Kinds on their way at once: one whose queue takes nothing holds up no other.
LANES = 4

#: Jobs taken at a time. No more than go out in one window: then what is sent again after a lost connection, too, comes
#: in order. Fewer while the broker takes none of a kind.
BATCH = WINDOW
FEW = 10

#: How long published jobs are kept, to be looked at.
RETENTION = timedelta(days=1)

#: Seconds each job of a batch may take to be confirmed.
_CONFIRM = 10.0

#: Seconds to the first look after work was found; each further one is twice as late, up to the outbox's own ``poll``.
_SOONEST = 0.01

#: Seconds between two looks whether a store that is away answers, at most, and between two rounds of chores.
_LOOK_EVERY = 2.0
_TEND_EVERY = 15.0
_EXPIRE_AT_ONCE = 1000
_EXPIRE_PAUSE = 0.05


class Relay:
    """Publishes what waits in *outbox* on *broker*, for as long as it runs. Any number of relays may share an outbox.

    A job is marked after the broker has confirmed it: a relay that dies in between leaves a duplicate, never a gap. One
    that the broker returns or AMQP cannot carry is parked, and the others go on; so they do past one that is refused,
    which is tried again. Up to *lanes* kinds are on their way at once. Used once, on one event loop.
    """

    def __init__(
        self,
        outbox: Outbox,
        broker: Broker,
        *,
        lanes: int = LANES,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        clock: Clock | None = None,
        events: Events | None = None,
    ) -> None:
        self.events = events or Events()
        self._outbox = outbox
        self._lanes = lanes
        self._connect_timeout = connect_timeout
        self._clock = clock or SystemClock()
        #: What the management UI calls its connection.
        self.name = f"relay@{socket.gethostname()}:{os.getpid()} publish"
        self._links = Reconnecting(broker, self.name, self.events, connect_timeout=connect_timeout)
        self._sender = Sender(self._links)
        # Nobody listens: one event tells of a batch, not one of each job.
        self._publishing = Publishing(self._sender, Events())
        self._packer = Packer(self._clock, None, MAX_BODY, None, trace=untraced)
        self._batches: dict[str, asyncio.Task[None]] = {}
        self._served: dict[str, float] = {}
        self._rests = Rests()

    async def run(self, *, stop: asyncio.Event, drain_timeout: timedelta = timedelta(seconds=25)) -> bool:
        """Relay until *stop*, then finish what is on its way; whether that ended within *drain_timeout*.

        Store and broker are reached for the first time within the connect timeout; later they are waited for without
        end. Raises ``StoreUnavailable``, ``ConfigError``, ``BrokerError``. Cancelled, it leaves at once: what was not
        marked is published again.
        """
        working = asyncio.create_task(self._work())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            await ended(working)
            return await self._drain(drain_timeout.total_seconds())
        finally:
            await ended(working, stopping, *self._batches.values())
            await self._sender.close()
            await self._links.close()
            await self._outbox.close()

    async def _work(self) -> None:
        await persistently(self._outbox.open, self._outbox.shown, self.events, self._connect_timeout)
        self.events.emit(StoreOpened(self._outbox.shown))
        await self._links.link()
        tasks = [asyncio.create_task(self._relay()), asyncio.create_task(self._tend())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await ended(*tasks)

    async def _relay(self) -> None:
        while True:
            try:
                await self._dispatch()
            except (StoreUnavailable, ConfigError) as error:
                await self._until_it_answers(error)

    async def _dispatch(self) -> None:
        """Begin batches whenever there is something to take and a lane free. Raises what a batch raises."""
        news = asyncio.create_task(self._outbox.news())
        look = _SOONEST
        try:
            while True:
                await self._until_the_broker_takes()
                look = _SOONEST if await self._begin() else min(look * 2, self._outbox.poll)
                full = len(self._batches) >= self._lanes
                tasks = self._batches.values() if full else [news, *self._batches.values()]
                await asyncio.wait(tasks, timeout=None if full else look, return_when=asyncio.FIRST_COMPLETED)
                self._collect()
                if news.done():
                    news.result()
                    news = asyncio.create_task(self._outbox.news())
        finally:
            await ended(news)

    async def _until_the_broker_takes(self) -> None:
        """While the broker is away or blocks us, nothing is taken and held. Raises ``AccessRefused``."""
        while True:
            try:
                await self._sender.outlet()
            except ConnectionLost:  # in the midst of it
                await asyncio.sleep(_SOONEST)
            else:
                return

    async def _begin(self) -> bool:
        """Begin a batch of each kind that waits, the ones served longest ago first; whether there was any."""
        waiting = await self._outbox.waiting()
        now = asyncio.get_running_loop().time()
        self._served = {kind: self._served.get(kind, 0.0) for kind in waiting}
        free = [kind for kind in waiting if kind not in self._batches and not self._rests.resting(kind, now)]
        chosen = sorted(free, key=self._served.__getitem__)[: self._lanes - len(self._batches)]
        for kind in chosen:
            self._served[kind] = now
            self._batches[kind] = asyncio.create_task(self._batch(kind), name=f"relay {kind}")
        return bool(chosen)

    def _collect(self) -> None:
        for kind in [kind for kind, task in self._batches.items() if task.done()]:
            self._batches.pop(kind).result()

    async def _batch(self, kind: str) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        async with self._outbox.take(kind, FEW if self._rests.failing(kind) else BATCH) as taken:
            if taken is None:
                self._rests.elsewhere(kind, started)
                return
            if not taken.rows:
                return
            reach("outbox-taken")
            result = await self._publish(taken.rows)
            reach("outbox-published")
            await taken.settle(result.published, [(row.row, reason) for row, reason in result.parked])
        self._report(kind, result, started, clock())

    async def _publish(self, rows: Sequence[Waiting]) -> Sorted:
        """Publish *rows*, pipelined, and sort them by the broker's answers."""
        items = [packed(row, self._packer) for row in rows]
        answers = iter(
            await self._publishing.send_many((item for item in items if isinstance(item, Outgoing)), _CONFIRM)
        )
        return sort(rows, [next(answers) if isinstance(item, Outgoing) else item for item in items])

    def _report(self, kind: str, result: Sorted, started: float, now: float) -> None:
        if result.published:
            self.events.emit(Relayed(kind, len(result.published), now - started))
        for row, reason in result.parked:
            self.events.emit(RelayParked(kind, row.job_id, reason))
        if not result.left:
            self._rests.worked(kind)
            return
        rest = self._rests.put_off if result.published else self._rests.failed
        self.events.emit(RelayPutOff(kind, result.left, result.last, rest(kind, now)))

    async def _until_it_answers(self, error: PenstockError) -> None:
        """Wait until the store, which *error* is from, answers; what is under way ends first."""
        self.events.emit(StoreLost(self._outbox.shown, str(error)))
        since, wait = time.monotonic(), 0.1
        if self._batches:
            await asyncio.wait(self._batches.values())
        while not await self._answers():
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LOOK_EVERY)
        self.events.emit(StoreAnswered(self._outbox.shown, time.monotonic() - since))

    async def _answers(self) -> bool:
        try:
            self._forgive()
            await self._outbox.waiting()
        except (StoreUnavailable, ConfigError):
            return False
        return True

    def _forgive(self) -> None:
        """Take the batches that have ended; that the store is away is known. Raises what else one of them met."""
        for kind in [kind for kind, task in self._batches.items() if task.done()]:
            with contextlib.suppress(StoreUnavailable, ConfigError):
                self._batches.pop(kind).result()

    async def _tend(self) -> None:
        """Tell how much waits, and forget what was published long ago."""
        while True:
            with contextlib.suppress(StoreUnavailable, ConfigError):  # the dispatcher tells of it
                if self.events.watched:
                    await self._tell_backlog()
                await self._forget(self._clock.now_ms() - RETENTION // timedelta(milliseconds=1))
            await asyncio.sleep(_TEND_EVERY)

    async def _tell_backlog(self) -> None:
        found = await self._outbox.backlog()
        added = min((kind.oldest for kind in found if kind.oldest is not None), default=None)
        oldest = None if added is None else max(0.0, (self._clock.now_ms() - added) / 1000)
        waiting, parked = sum(kind.waiting for kind in found), sum(kind.parked for kind in found)
        self.events.emit(OutboxBacklog(self._outbox.shown, waiting, oldest, parked))

    async def _forget(self, before: int) -> None:
        """One small batch after another, with pauses in which others come first."""
        forgotten = _EXPIRE_AT_ONCE
        while forgotten == _EXPIRE_AT_ONCE:
            forgotten = await self._outbox.expire(before, _EXPIRE_AT_ONCE)
            await asyncio.sleep(_EXPIRE_PAUSE)

    async def _drain(self, seconds: float) -> bool:
        self.events.emit(DrainStarted("outbox", len(self._batches), seconds))
        if not self._batches:
            return True
        _, late = await asyncio.wait(self._batches.values(), timeout=seconds)
        if not late:
            self._forgive()
        return not late
