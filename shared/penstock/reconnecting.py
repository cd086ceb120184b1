"""A connection that is always there or on its way: the one reconnecting engine, for publishers and workers alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, stop_never
from tenacity.stop import stop_base
from tenacity.wait import wait_random_exponential

from penstock.errors import BrokerError, ConnectionLost
from penstock.events import ConnectFailed, Events, LinkBlocked, LinkClosed, LinkLost, LinkOpened, LinkUnblocked
from penstock.ports import Broker, Link

CONNECT_TIMEOUT = timedelta(seconds=30)
_MAX_WAIT = 5.0


class Reconnecting:
    """Hands out the current link and opens a new one when it is gone.

    The first connection is tried for *connect_timeout*; after that it is tried for ever, with jittered backoff up to
    5 s. Only ``ConnectionLost`` is retried: a refused login fails at once. One event loop; safe to share by its tasks.
    """

    def __init__(
        self, broker: Broker, name: str, events: Events, *, connect_timeout: timedelta = CONNECT_TIMEOUT
    ) -> None:
        self._broker = broker
        self._name = name
        self._events = events
        self._connect_timeout = connect_timeout
        self._link: Link | None = None
        self._opening: asyncio.Task[Link] | None = None
        self._closed = False
        self._once_open = False
        self._stands: Link | None = None  # the link whose opening was told, and whose end was not

    @property
    def connected(self) -> bool:
        """Whether a live link stands now."""
        return self._link is not None and not self._link.lost.done()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called: there will be no link any more."""
        return self._closed

    @property
    def current(self) -> Link | None:
        """The live link, or None while there is none."""
        return self._link if self.connected else None

    async def link(self) -> Link:
        """Return the live link, opening one when there is none; callers share one opening. Raises ``BrokerError``."""
        while True:
            if self._link is not None and not self._link.lost.done():
                return self._link
            if self._closed:
                raise ConnectionLost("the connection was closed on our side")
            if self._opening is None:
                self._opening = asyncio.create_task(self._open(), name=f"connect {self._name}")
                self._opening.add_done_callback(self._opened)
            # Shielded: a caller that gives up must not take the connection from the others.
            await asyncio.shield(self._opening)

    async def stay(self) -> None:
        """Open another link whenever the present one is gone, also while nobody asks for it. Runs until cancelled, or
        until the broker refuses; then whoever asks is told."""
        with contextlib.suppress(BrokerError):
            while True:
                link = await self.link()
                await asyncio.wait([link.lost])

    async def renew(self, link: Link) -> None:
        """Give up on *link* (it is blocked or half dead); the next ``link()`` opens another. Never raises."""
        if link is self._link:
            self._link = None
        self._tell_closed(link)
        await link.close()

    async def close(self) -> None:
        """Close the link and open no more. Idempotent."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, BrokerError):
                await self._opening
        if self._link is not None:
            self._tell_closed(self._link)
            await self._link.close()

    def _opened(self, task: asyncio.Task[Link]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # every waiter has it; unread it would be logged as never retrieved

    async def _open(self) -> Link:
        stop: stop_base = stop_never if self._once_open else stop_after_delay(self._connect_timeout.total_seconds())
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ConnectionLost),
            wait=wait_random_exponential(multiplier=0.2, max=_MAX_WAIT),
            stop=stop,
            before_sleep=self._report,
            reraise=True,
        )
        link: Link = await retrying(self._broker.connect, self._name)
        self._link, self._once_open, self._stands = link, True, link
        self._events.emit(LinkOpened(self._name))
        link.on_blocked(self._blocked)
        link.lost.add_done_callback(self._lost(link))
        return link

    def _tell_closed(self, link: Link) -> None:
        if self._stands is link:
            self._stands = None
            self._events.emit(LinkClosed(self._name))

    def _blocked(self, reason: str | None) -> None:
        self._events.emit(LinkUnblocked(self._name) if reason is None else LinkBlocked(self._name, reason))

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._events.emit(ConnectFailed(self._name, str(error), state.attempt_number, state.upcoming_sleep))

    def _lost(self, link: Link) -> Callable[[asyncio.Future[BrokerError]], None]:
        def report(lost: asyncio.Future[BrokerError]) -> None:
            if self._stands is link:
                self._stands = None
                self._events.emit(LinkLost(self._name, str(lost.result())))

        return report
