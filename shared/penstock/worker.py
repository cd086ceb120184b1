"""The worker: consumes one job family's queue and runs its handlers, from connecting to draining."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any  # futures of any result

from penstock.claiming import Claiming, StoreTerms, persistently
from penstock.clock import Clock, SystemClock
from penstock.consuming import Consuming
from penstock.errors import ConfigError, ConnectionLost, RegistrationError, TopologyMismatch
from penstock.events import DrainStarted, Events, WorkerStarted
from penstock.execution import Execution, Limits
from penstock.handlers import Handler, Handlers, Isolation, Once
from penstock.message import MAX_BODY
from penstock.middleware import Middleware
from penstock.ports import Broker, Link, Subscription
from penstock.reconnecting import CONNECT_TIMEOUT, Reconnecting
from penstock.reserve import Reserve
from penstock.runners.children import ChildProcesses
from penstock.runners.in_process import calls
from penstock.sending import Sender
from penstock.settlement import Settlement
from penstock.storing import EffectStore, Store
from penstock.topology.names import work_queue
from penstock.watchdog import watch_consumer, watch_loop

DRAIN_TIMEOUT = timedelta(seconds=25)
UNKNOWN_KIND_GRACE = timedelta(minutes=5)
CONSUMER_TIMEOUT = timedelta(minutes=30)
#: Seconds before a consumer that could not be opened is tried again, and before one that has ended is: a broker that
#: takes it away at once every time is not asked a thousand times a second.
_REOPEN_WAIT = 2.0
_PAUSE = 0.2


class Worker:
    """Runs *handlers* for the jobs of *queue* (``email`` consumes ``jobs.email``), *slots* at a time.

    *middleware*: around every handler's run, the first one outermost. *binds*: the queue's kind patterns; a message of
    another kind is dead (None: not checked). *unknown_kind_grace*: how long a kind without a handler is put off.
    *max_body*: bytes. *consumer_timeout*: the broker's, above which it takes deliveries back. *watchdog*: silence after
    which a consumer is opened anew though messages are ready. *ready*: awaited with the store once that is open, before
    anything is consumed; again while it raises ``StoreUnavailable``, any other error ends ``run`` (see
    ``service_tables.tables``). Raises ``ConfigError`` with every
    problem at once.
    """

    def __init__(
        self,
        handlers: Handlers,
        *,
        queue: str,
        slots: int = 16,
        middleware: Sequence[Middleware] = (),
        binds: Sequence[str] | None = None,
        name: str | None = None,
        unknown_kind_grace: timedelta = UNKNOWN_KIND_GRACE,
        max_body: int = MAX_BODY,
        consumer_timeout: timedelta = CONSUMER_TIMEOUT,
        watchdog: timedelta = timedelta(seconds=30),
        ready: Callable[[Store], Awaitable[None]] | None = None,
        clock: Clock | None = None,
        events: Events | None = None,
    ) -> None:
        self.handlers = handlers
        self.queue = queue
        self.slots = slots
        self.middleware = tuple(middleware)
        self.limits = Limits(max_body, binds, unknown_kind_grace)
        self.events = events or Events()
        self.name = f"{name or queue}@{socket.gethostname()}:{os.getpid()}"
        #: What it takes the broker's to be.
        self.consumer_timeout = consumer_timeout
        self._patience = watchdog.total_seconds()
        self._ready = ready
        #: May be replaced before ``run``: a test hands a clock of its own to a worker that a factory built.
        self.clock = clock or SystemClock()
        self._stop_now = asyncio.Event()
        self._openings = 0
        self._consumed = False

    @property
    def prefetch(self) -> int:
        """Deliveries held at once to begin with; see ``Reserve``."""
        return Reserve(self.slots).prefetch

    def held_at_most(self, handler: Handler) -> timedelta | None:
        """How long a delivery for *handler* may stay unsettled, the reserve before it included; None: no deadline."""
        return None if handler.timeout is None else handler.timeout * (self.prefetch / max(self.slots, 1))

    @property
    def connections(self) -> tuple[str, str]:
        """What the management UI calls its two connections: the one that consumes, the one that publishes copies."""
        return f"{self.name} consume", f"{self.name} publish"

    def limit_to(self, patterns: Sequence[str]) -> None:
        """Take only kinds that match *patterns*, before ``run``; a message of another kind is dead."""
        self.limits = replace(self.limits, binds=tuple(patterns))

    @property
    def needs_store(self) -> bool:
        """Whether a handler asks for its effect to happen once."""
        return any(handler.once is not None for handler in self.handlers)

    def check(self, factory: str | None = None, store: Store | None = None, terms: StoreTerms | None = None) -> None:
        """Raise ``ConfigError`` with everything that would make this worker lose its deliveries or do nothing, or
        forget a job too soon."""
        problems = self._problems(factory) + self._store_problems(store, terms or StoreTerms())
        if problems:
            raise ConfigError(*problems)

    async def run(
        self,
        broker: Broker,
        *,
        stop: asyncio.Event,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        drain_timeout: timedelta = DRAIN_TIMEOUT,
        factory: str | None = None,
        store: Store | None = None,
        terms: StoreTerms | None = None,
    ) -> bool:
        """Work until *stop* is set, then drain; True when every job ended by itself, False when some went back.

        Two connections, one to consume and one to publish copies, reconnected for ever once they stood. *factory*
        (``MODULE:FACTORY``) lets child processes rebuild the handlers: needed for ``isolation="process"`` and for
        running suspects alone. *store*: remembers jobs for handlers that say ``once``; opened and closed here; while
        it is away nothing is consumed. Raises ``ConfigError``, ``ConnectionLost`` and ``StoreUnavailable`` (not reached
        within *connect_timeout*), ``AccessRefused``, ``TopologyMismatch`` (the queue is missing at the start). Runs
        once.
        """
        self.check(factory, store, terms)
        kinds = tuple(handler.kind.name for handler in self.handlers)
        self.events.emit(WorkerStarted(work_queue(self.queue), self.slots, kinds))
        claiming = self._claiming(store, terms or StoreTerms())
        async with (
            self._opened(claiming, store, connect_timeout),
            self._session(broker, connect_timeout, factory, claiming) as (links, consuming),
        ):
            lag = asyncio.create_task(watch_loop(consuming, self.events))
            try:
                await self._consume(links, consuming, stop, claiming)
                return await self._drain(consuming, drain_timeout)
            finally:
                lag.cancel()
                consuming.count()

    def stop_now(self) -> None:
        """Cut a drain short: what still runs is cancelled and goes back to the queue. Call it on the worker's loop."""
        self._stop_now.set()

    def _claiming(self, store: Store | None, terms: StoreTerms) -> Claiming | None:
        if store is None or not self.needs_store:
            return None
        return Claiming(store, self.queue, terms, self.events)

    @contextlib.asynccontextmanager
    async def _opened(
        self, claiming: Claiming | None, store: Store | None, connect_timeout: timedelta
    ) -> AsyncIterator[None]:
        """The store open during the block, with all that the handlers need in it."""
        if claiming is None or store is None:
            yield
            return
        async with claiming.opened(connect_timeout):
            if self._ready is not None:
                await persistently(partial(self._ready, store), store.shown, self.events, connect_timeout)
            yield

    @contextlib.asynccontextmanager
    async def _session(
        self, broker: Broker, connect_timeout: timedelta, factory: str | None, claiming: Claiming | None
    ) -> AsyncIterator[tuple[Reconnecting, Consuming]]:
        consume, publish = (
            Reconnecting(broker, name, self.events, connect_timeout=connect_timeout) for name in self.connections
        )
        sender = Sender(publish)
        children = ChildProcesses(factory) if factory else None
        threads = ThreadPoolExecutor(self.slots, "handler")
        run = calls(self.handlers, self.middleware, threads, claiming)
        execution = Execution(self.handlers, run, self.limits, self.clock, self.events, children, claiming)
        settlement = Settlement(sender, self.clock, self.events, self.name, claiming)
        queue = work_queue(self.queue)
        staying = asyncio.create_task(publish.stay())
        try:
            await publish.link()
            yield consume, Consuming(queue, self.slots, self._reserve(), execution, settlement, self.events)
        finally:
            staying.cancel()
            threads.shutdown(wait=False, cancel_futures=True)
            if children is not None:
                await children.close()
            await sender.close()
            await publish.close()
            await consume.close()

    async def _consume(
        self, links: Reconnecting, consuming: Consuming, stop: asyncio.Event, claiming: Claiming | None
    ) -> None:
        """Keep a consumer open until *stop*; none while the store is away."""
        stopping = asyncio.create_task(stop.wait())
        away = asyncio.Event() if claiming is None else claiming.away
        try:
            while not stop.is_set():
                if claiming is not None and away.is_set():
                    await _first(stopping, here := asyncio.create_task(claiming.here.wait()))
                    here.cancel()
                    continue
                opening = asyncio.create_task(self._open(links, consuming))
                await _first(opening, stopping)
                if not opening.done():
                    opening.cancel()
                    await asyncio.gather(opening, return_exceptions=True)
                    return
                subscription, guard = opening.result()
                await _first(subscription.ended, stopping, going := asyncio.create_task(away.wait()))
                going.cancel()
                guard.cancel()
                if away.is_set() and not stop.is_set():
                    await consuming.pause()
                if subscription.ended.done() and not stop.is_set():
                    consuming.ended(subscription.ended.result())
                    await subscription.close()
                    await asyncio.wait([stopping], timeout=_PAUSE)
        finally:
            stopping.cancel()

    async def _open(self, links: Reconnecting, consuming: Consuming) -> tuple[Subscription, asyncio.Task[None]]:
        """Open the consumer. A queue missing at the first opening is a mistake; one that goes later may come back."""
        while True:
            link = await links.link()
            self._openings += 1
            try:
                subscription = await consuming.open(link, f"{self.name}#{self._openings}")
            except TopologyMismatch as error:
                if not self._consumed:
                    raise
                consuming.ended(error)
            except ConnectionLost:
                await links.renew(link)
            else:
                self._consumed = True
                return subscription, asyncio.create_task(self._guard(link, subscription, consuming))
            await asyncio.sleep(_REOPEN_WAIT)

    async def _guard(self, link: Link, subscription: Subscription, consuming: Consuming) -> None:
        await watch_consumer(link, subscription, consuming, self.events, work_queue(self.queue), self._patience)

    async def _drain(self, consuming: Consuming, timeout: timedelta) -> bool:
        seconds = timeout.total_seconds()
        self.events.emit(DrainStarted(self.queue, consuming.busy, seconds))
        return await consuming.drain(seconds, self._stop_now)

    def _problems(self, factory: str | None) -> list[str]:
        found: list[str] = []
        if self.slots < 1:
            found.append(f"slots is {self.slots}; at least 1")
        if not len(self.handlers):
            found.append("no handlers are registered: the worker would put every job off")
        return found + [problem for handler in self.handlers for problem in self._problems_of(handler, factory)]

    def _store_problems(self, store: Store | None, terms: StoreTerms) -> list[str]:
        once = [handler for handler in self.handlers if handler.once is not None]
        if not once:
            return []
        if store is None:
            return [f"{once[0].kind.name} says once='{once[0].once}', which needs a store: set PENSTOCK_STORE_URL"]
        effect = next((handler.kind.name for handler in once if handler.once is Once.EFFECT), None)
        found = []
        if effect is not None and not isinstance(store, EffectStore):
            found.append(
                f"{effect} says once='effect', and {store.shown} has no transaction that could hold the effect: "
                "use sqlite:// or postgresql://, or once='lease'"
            )
        return found + [problem for handler in once for problem in _too_short(handler, terms)]

    def _reserve(self) -> Reserve:
        """A reserve whose last delivery still runs and ends before the broker's consumer timeout."""
        longest = max((handler.timeout for handler in self.handlers if handler.timeout is not None), default=None)
        if longest is None:
            return Reserve(self.slots)
        return Reserve(self.slots, int(self.slots * (0.9 * self.consumer_timeout / longest - 1)))

    def _problems_of(self, handler: Handler, factory: str | None) -> Iterator[str]:
        try:
            handler.kind.check()
        except RegistrationError as error:
            yield str(error)
        longest = self.held_at_most(handler)
        if longest is not None and longest >= self.consumer_timeout:
            yield (
                f"{handler.kind.name} may run {handler.timeout}, {longest} with the reserve before it: not below "
                f"the broker's consumer timeout of {self.consumer_timeout}, when another worker gets the job"
            )
        if handler.isolation is Isolation.PROCESS and factory is None:
            yield f"{handler.kind.name} runs in a child process, which needs a factory: penstock worker MODULE:FACTORY"


def _too_short(handler: Handler, terms: StoreTerms) -> Iterator[str]:
    """What is forgotten before its last copy can come back would run twice."""
    horizon = handler.retry.horizon
    if terms.retention < horizon + terms.dead:
        yield (
            f"the store forgets jobs after {terms.retention} (PENSTOCK_STORE_RETENTION), but a job of "
            f"{handler.kind.name} may come back for {horizon} (snoozes and retries) + {terms.dead} (replays of dead "
            f"letters, PENSTOCK_DEAD_RETENTION) = {horizon + terms.dead}"
        )


async def _first(*waits: asyncio.Future[Any]) -> None:
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
