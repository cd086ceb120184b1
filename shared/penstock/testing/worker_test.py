"""Runs a real worker over a broker in memory, for tests of handlers: publish, let time pass, look what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar  # options of a worker are handed through

from penstock.brokers.memory import MemoryBroker
from penstock.claims import StoreUrl
from penstock.events import ConsumingStarted, Event, Events, JobFinished
from penstock.handlers import Handlers
from penstock.job import JobKind, Receipt
from penstock.message import Message
from penstock.outcome import Dead, Done, Duplicate, Expired, Outcome, Retried, Skipped, Snoozed
from penstock.publisher import AsyncPublisher
from penstock.schedules.events import Ticked
from penstock.schedules.model import Schedule
from penstock.stores.sqlite import SqliteStore
from penstock.storing import Store
from penstock.testing.clock import ManualClock
from penstock.testing.schedules import ManualSchedules
from penstock.topology.build import build
from penstock.topology.names import DELAY, JOBS, UNROUTED, dead_queue
from penstock.topology.spec import QueueSpec, Spec
from penstock.worker import Worker

A = TypeVar("A")

#: How long a handler may still run when the test is over.
DRAIN = timedelta(seconds=5)
_SEND_WITHIN = 10.0


class WorkerTest:
    """A worker with its broker, its publisher and its clock, all in this process and event loop.

        async with WorkerTest(handlers, queue="email") as t:
            await t.publish(SEND_EMAIL, SendEmail(to="ada@example.org", template="welcome"))
            await t.settled()
            assert len(t.retried) == 1
            await t.advance(timedelta(seconds=1))
            assert len(t.done) == 1

    The worker is the real one; only the broker is in memory and only the wall clock is turned by hand: delays, retries,
    expiries and schedules pass when the test says so, deadlines of handlers pass in real time.
    """

    def __init__(
        self,
        subject: Worker | Handlers,
        *,
        queue: str = "test",
        spec: Spec | None = None,
        clock: ManualClock | None = None,
        broker: MemoryBroker | None = None,
        factory: str | None = None,
        store: Store | None = None,
        schedules: Sequence[Schedule] = (),
        **options: Any,
    ) -> None:
        """Prepare to run *subject*: a worker not yet run, or handlers, for which one is made on *queue* with *options*.

        *spec*: the topology (``read_spec`` reads a file's); without one the queue takes exactly the kinds that have a
        handler. *clock* and *broker*: to be shared with another test of the same broker; *spec* is then left out.
        *factory*: as for ``Worker.run``, for handlers with ``isolation="process"``. *store*: for handlers that say
        ``once``, migrated already; without one they get a fresh SQLite file, whose leases pass by *clock*.
        *schedules*: what a scheduler beside the worker publishes (``read_schedules`` reads a file's), from the instant
        after the one at which the test begins.
        """
        self.worker = subject if isinstance(subject, Worker) else Worker(subject, queue=queue, **options)
        self.clock = clock or ManualClock()
        self.broker = broker or MemoryBroker(build(spec or _spec_for(self.worker)), self.clock)
        self.publisher = AsyncPublisher(self.broker, clock=self.clock)
        self.events: list[Event] = []
        self.worker.clock = self.clock
        self._factory = factory
        self._files = contextlib.ExitStack()
        self._store = store
        #: Where the store is that this test made for itself; empty until it has begun, and when it has none.
        self.store_url = ""
        self._schedules = self._scheduled(schedules)
        self._stop = asyncio.Event()
        self._consuming = asyncio.Event()
        self._running: asyncio.Task[bool] | None = None

    async def publish(self, kind: JobKind[A], args: A, **options: Any) -> Receipt:
        """Publish a job as a producer does; *options* and errors are those of ``AsyncPublisher.publish``."""
        return await self.publisher.publish(kind, args, **options)

    async def send(self, message: Message, key: str, exchange: str = JOBS) -> None:
        """Publish *message* as it is, as a foreign producer does. Raises ``Unroutable`` and other ``BrokerError``."""
        link = await self.broker.connect("foreign")
        outlet = await link.outlet()
        await outlet.publish(message, exchange, key, asyncio.get_running_loop().time() + _SEND_WITHIN)
        await link.close()

    async def settled(self) -> None:
        """Wait until every job that is due was run and settled.

        Raises ``TimeoutError`` naming the jobs that hang after 5 s, and whatever ended the worker.
        """
        self._raise_if_ended()
        await self.broker.quiet()
        self._raise_if_ended()

    async def advance(self, by: timedelta) -> None:
        """Let *by* pass: what falls due meanwhile happens in order, each at its instant, and is settled. Raises as
        ``settled`` does, and ``PublishError`` for a schedule's tick that is refused."""
        self._raise_if_ended()
        await self.clock.advance(by)
        self._raise_if_ended()

    def now(self) -> datetime:
        """Where the clock stands, in UTC."""
        return self.clock.now()

    @property
    def finished(self) -> Sequence[JobFinished]:
        """Every run so far, in order: a retried job has one for each attempt."""
        return [event for event in self.events if isinstance(event, JobFinished)]

    @property
    def done(self) -> Sequence[JobFinished]:
        """The jobs whose handler returned."""
        return self._ended_as(Done)

    @property
    def retried(self) -> Sequence[JobFinished]:
        """The attempts that failed and were followed, or will be, by another."""
        return self._ended_as(Retried)

    @property
    def snoozed(self) -> Sequence[JobFinished]:
        """The runs that put their job off."""
        return self._ended_as(Snoozed)

    @property
    def dead(self) -> Sequence[JobFinished]:
        """The jobs that the worker dead-lettered."""
        return self._ended_as(Dead)

    @property
    def duplicates(self) -> Sequence[JobFinished]:
        """The deliveries whose job the store knew already."""
        return self._ended_as(Duplicate)

    @property
    def skipped(self) -> Sequence[JobFinished]:
        """The ticks that were not run because another one of their schedule had not ended."""
        return self._ended_as(Skipped)

    @property
    def expired(self) -> Sequence[JobFinished]:
        """The jobs that came too late to be run."""
        return self._ended_as(Expired)

    @property
    def ticks(self) -> Sequence[Ticked]:
        """What the schedules have published so far, in order."""
        return [event for event in self.events if isinstance(event, Ticked)]

    @property
    def dead_letters(self) -> Sequence[Message]:
        """What lies in the queue's dead letters, those that the broker made included."""
        return self.broker.ready(dead_queue(self.worker.queue))

    @property
    def delayed(self) -> Sequence[Message]:
        """What waits for its time: delayed jobs, retries and snoozes."""
        levels = [name for name in self.broker.queue_names if name.startswith(f"{DELAY}.")]
        return [message for level in levels for message in self.broker.ready(level)]

    @property
    def unrouted(self) -> Sequence[Message]:
        """Delayed jobs that no queue took when they were due."""
        return self.broker.ready(UNROUTED)

    async def __aenter__(self) -> Self:
        self.worker.events.subscribe(self._saw)
        store = await self._opened_store()
        self._running = asyncio.create_task(
            self.worker.run(self.broker, stop=self._stop, drain_timeout=DRAIN, factory=self._factory, store=store)
        )
        started = asyncio.create_task(self._consuming.wait())
        await asyncio.wait([self._running, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        self._raise_if_ended()
        await self._schedules.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain the worker. What still runs after 5 s is cancelled, which fails the test unless it failed already."""
        assert self._running is not None
        self._stop.set()
        await asyncio.wait([self._running])
        await self._schedules.close()
        await self.publisher.close()
        self._files.close()
        if error is None and not self._running.result():
            raise TimeoutError(f"a handler still ran {DRAIN.total_seconds():g} s after the test was over")

    def _scheduled(self, schedules: Sequence[Schedule]) -> ManualSchedules:
        events = Events()
        events.subscribe(self._saw, Ticked)
        return ManualSchedules(schedules, self.broker, self.clock, events)

    async def _opened_store(self) -> Store | None:
        if self._store is None and self.worker.needs_store:
            folder = self._files.enter_context(tempfile.TemporaryDirectory(prefix="penstock-test-"))
            self.store_url = f"sqlite:///{folder}/store.db"
            self._store = SqliteStore(StoreUrl.parse(self.store_url), clock=self.clock)
            await self._store.migrate()
        return self._store

    def _saw(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ConsumingStarted):
            self._consuming.set()

    def _ended_as(self, outcome: type[Outcome]) -> Sequence[JobFinished]:
        return [event for event in self.finished if isinstance(event.outcome, outcome)]

    def _raise_if_ended(self) -> None:
        if self._running is None:
            raise RuntimeError("the worker is not running: use `async with WorkerTest(...)`")
        if self._running.done():
            self._running.result()
            raise RuntimeError("the worker has ended")


def _spec_for(worker: Worker) -> Spec:
    return Spec((QueueSpec(worker.queue, tuple(handler.kind.name for handler in worker.handlers)),))
