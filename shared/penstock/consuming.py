"""Deliveries into slots: runs as many jobs at once as there are slots, keeps a small reserve, settles what ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable
from dataclasses import dataclass, field

from penstock import headers as h
from penstock.copies import kind_of
from penstock.errors import BrokerError
from penstock.events import AcksSent, ConsumingEnded, ConsumingStarted, Events
from penstock.execution import Execution, identify
from penstock.message import Delivery
from penstock.outcome import Done, Outcome, Released
from penstock.ports import Link, Subscription
from penstock.reserve import Reserve
from penstock.settlement import Settlement

#: Answers kept for redeliveries of jobs that ended while no connection stood.
_MAX_ANSWERS = 10_000

Identity = tuple[str, int]


@dataclass(slots=True, eq=False)
class _Source:
    """One opening of the consumer. A delivery can arrive before ``consume`` has returned, hence *early*."""

    subscription: Subscription | None = None
    early: list[Delivery] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.subscription is not None and not self.subscription.ended.done()


@dataclass(slots=True, eq=False)
class _Run:
    """A job that runs or waits to be settled, and the delivery by which it will be settled."""

    delivery: Delivery
    source: _Source
    task: asyncio.Task[None] | None = None


class Consuming:
    """The consumption of one queue. One event loop, no sharing.

    When the consumer is lost, running handlers run on; a redelivery of the same (job id, copy) is attached to the
    running one, or answered at once when it has ended meanwhile, instead of being run beside it.
    """

    def __init__(
        self, queue: str, slots: int, reserve: Reserve, execution: Execution, settlement: Settlement, events: Events
    ) -> None:
        self._queue = queue
        self._slots = slots
        self._reserve = reserve
        self._execution = execution
        self._settlement = settlement
        self._events = events
        #: What a job starts with: nothing that the job before it has left in its own context.
        self._context = contextvars.copy_context()
        self._source = _Source()
        self._retired: set[_Source] = set()
        self._paused = False
        self._waiting: deque[tuple[_Source, Delivery]] = deque()
        self._runs: set[_Run] = set()
        self._by_identity: dict[Identity, _Run] = {}
        self._answers: OrderedDict[Identity, Outcome] = OrderedDict()
        self._busy = 0
        self._started: set[str] = set()
        self._narrow = True
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._widening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        #: Loop time of the last delivery, for the watchdog.
        self.last_delivery = 0.0

    @property
    def starved(self) -> bool:
        """Whether a healthy broker with ready messages would deliver now: slots free and the prefetch window open."""
        unsettled = len(self._runs) + len(self._waiting)
        return (
            self._source.alive
            and not self._paused
            and self._busy < self._slots
            and unsettled < (1 if self._narrow else self._reserve.prefetch)
        )

    @property
    def busy(self) -> int:
        """How many handlers run now."""
        return self._busy

    def count(self) -> None:
        """Tell the subscribers who count jobs what was not told yet."""
        self._execution.count()

    def recent_kinds(self) -> set[str]:
        """The kinds that ran at any time since the last call."""
        recent, self._started = self._started, set()
        return recent | {kind_of(run.delivery) for run in self._runs}

    async def open(self, link: Link, tag: str) -> Subscription:
        """Consume on *link*, with prefetch 1 until the first job is settled. Raises ``BrokerError``."""
        self._retire(self._source)
        source = self._source = _Source()
        self._narrow, self._paused = True, False
        self.last_delivery = asyncio.get_running_loop().time()

        def on_delivery(delivery: Delivery) -> None:
            if source.subscription is None:
                source.early.append(delivery)
            else:
                self._take(source, delivery)

        source.subscription = await link.consume(self._queue, 1, on_delivery, tag, slots=self._slots)
        if self._events.wants(AcksSent):
            source.subscription.on_acks = self._acked
        self._events.emit(ConsumingStarted(self._queue, self._reserve.prefetch, tag))
        for delivery in source.early:
            self._take(source, delivery)
        source.early.clear()
        return source.subscription

    def ended(self, reason: BrokerError) -> None:
        """The consumer is gone: forget what has not begun, for the broker hands it over again."""
        self._waiting.clear()
        self._events.emit(ConsumingEnded(self._queue, str(reason)))

    async def pause(self) -> None:
        """Take no more until ``open``, give back what has not begun; what runs is settled as ever."""
        self._paused = True
        if self._source.alive and self._source.subscription is not None:
            await _quietly(self._source.subscription.cancel())
        self._give_back()

    async def drain(self, timeout: float, now: asyncio.Event) -> bool:
        """Take no more, give back what has not begun, let running jobs end for *timeout* seconds or until *now*.

        Returns whether every job ended by itself; the others were cancelled and went back to the queue.
        """
        self._draining = True
        if self._source.alive and self._source.subscription is not None:
            await _quietly(self._source.subscription.cancel())
        self._give_back()
        clean = await self._ended_by_itself(timeout, now)
        if not clean:
            await self._cancel_all()
        for source in (self._source, *self._retired):
            if source.subscription is not None:
                await _quietly(source.subscription.close())
        return clean

    def _acked(self, count: int) -> None:
        self._events.emit(AcksSent(self._queue, count))

    def _give_back(self) -> None:
        for source, delivery in self._waiting:
            if source.subscription is not None:
                source.subscription.release(delivery)
        self._waiting.clear()

    async def _ended_by_itself(self, timeout: float, now: asyncio.Event) -> bool:
        waits = [asyncio.create_task(self._idle.wait()), asyncio.create_task(now.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            return self._idle.is_set()
        finally:
            for wait in waits:
                wait.cancel()

    async def _cancel_all(self) -> None:
        """End what still runs. A second cancel breaks a settlement that waits for a broker that does not answer."""
        for _ in range(2):
            tasks = [run.task for run in self._runs if run.task is not None]
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=2.0)

    def _take(self, source: _Source, delivery: Delivery) -> None:
        self.last_delivery = asyncio.get_running_loop().time()
        identify(delivery)
        if self._draining or self._paused:
            self._release(source, delivery)
        elif delivery.redelivered and self._attach(source, delivery):
            return
        elif self._busy < self._slots:
            self._start(source, delivery)
        else:
            self._waiting.append((source, delivery))
            self._reserve.held(len(self._runs) + len(self._waiting))

    def _release(self, source: _Source, delivery: Delivery) -> None:
        if source.subscription is not None:
            source.subscription.release(delivery)

    def _attach(self, source: _Source, delivery: Delivery) -> bool:
        """Hand a redelivery to the run it belongs to, whose own delivery died with its connection."""
        identity = _identity(delivery)
        run = self._by_identity.get(identity)
        if run is not None and not run.source.alive:
            run.delivery, run.source = delivery, source
            return True
        outcome = self._answers.pop(identity, None)
        if outcome is None:
            return False
        run = self._add(source, delivery)
        run.task = asyncio.create_task(self._answer(run, outcome))
        return True

    def _start(self, source: _Source, delivery: Delivery) -> None:
        run = self._add(source, delivery)
        self._busy += 1
        self._started.add(kind_of(delivery))
        run.task = asyncio.create_task(self._run(run), context=self._context.copy())

    def _add(self, source: _Source, delivery: Delivery) -> _Run:
        run = _Run(delivery, source)
        self._runs.add(run)
        self._by_identity.setdefault(_identity(delivery), run)
        self._idle.clear()
        return run

    async def _run(self, run: _Run) -> None:
        outcome: Outcome = Released()
        started = time.perf_counter()
        try:
            outcome = await self._execution.run(run.delivery)
        finally:
            self._busy -= 1
            if self._reserve.ran(time.perf_counter() - started) and not self._narrow:
                self._widen()
            self._next()
            await self._answer(run, outcome)

    def _next(self) -> None:
        while self._waiting and self._busy < self._slots and not (self._draining or self._paused):
            source, delivery = self._waiting.popleft()
            self._start(source, delivery)

    async def _answer(self, run: _Run, outcome: Outcome) -> None:
        try:
            await self._settle(run, outcome)
        finally:
            self._forget(run)
            if self._narrow and run.source is self._source:
                self._widen()

    async def _settle(self, run: _Run, outcome: Outcome) -> None:
        """Settle by the run's present delivery. Should that die meanwhile, its redelivery brings another, or finds
        the answer kept."""
        while True:
            source, delivery = run.source, run.delivery
            if source.subscription is not None and source.alive:
                if self._settlement.settle_now(source.subscription, delivery, outcome):
                    return
                replaced = await self._settlement.settle(source.subscription, delivery, outcome)
                if source.alive:
                    return
                outcome = Done() if replaced else outcome  # its copy stands: the original need only be acked
            if run.source is source:
                self._keep(run, outcome)
                return

    def _keep(self, run: _Run, outcome: Outcome) -> None:
        if isinstance(outcome, Released):
            return
        self._answers[_identity(run.delivery)] = outcome
        while len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)

    def _forget(self, run: _Run) -> None:
        self._runs.discard(run)
        identity = _identity(run.delivery)
        if self._by_identity.get(identity) is run:
            del self._by_identity[identity]
        if not self._runs:
            self._idle.set()
        if run.source in self._retired:
            self._retire(run.source)

    def _retire(self, source: _Source) -> None:
        """Close what an earlier opening still holds, once the last job that came by it is settled."""
        self._retired.discard(source)
        if not source.alive or source.subscription is None:
            return
        if any(run.source is source for run in self._runs):
            self._retired.add(source)
        else:
            self._closing = asyncio.create_task(_quietly(source.subscription.close()))

    def _widen(self) -> None:
        """Open the prefetch window, now that a first job is settled: this process survives its messages."""
        self._narrow = False
        subscription = self._source.subscription
        if subscription is not None and self._source.alive and not (self._draining or self._paused):
            self._widening = asyncio.create_task(_quietly(subscription.widen(self._reserve.prefetch)))


def _identity(delivery: Delivery) -> Identity:
    message = delivery.message
    return message.message_id or "", h.copy_of(message.headers) if message.headers else 0


async def _quietly(step: Awaitable[None]) -> None:
    """A consumer that is lost in the middle of a step reports that itself, through ``ended``."""
    with contextlib.suppress(BrokerError):
        await step
