"""Whether the broker takes jobs at this moment, and a connection to it that is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock import AsyncPublisher, ConnectionLost, Event, Unconfirmed
from penstock.events import ConnectFailed, LinkBlocked, LinkClosed, LinkLost, LinkOpened, LinkUnblocked
from services.intake.problems import AWAY, Problem

#: Seconds between two connections of which none came to stand.
_PAUSE = 0.2


class Standing:
    """Knows from the publisher's events whether a job would be taken, so that nobody has to wait to hear that it would
    not. One event loop."""

    def __init__(self, publisher: AsyncPublisher) -> None:
        self._publisher = publisher
        self._why: str | None = "the broker is not reached yet"
        self._reached = False
        self._lost = asyncio.Event()
        self._waiting: set[asyncio.Timeout] = set()
        publisher.events.subscribe(
            self._learn, LinkOpened, LinkLost, LinkClosed, ConnectFailed, LinkBlocked, LinkUnblocked
        )

    def check(self) -> None:
        """Return when jobs are taken. Raises ``Problem`` (503) at once when not."""
        if self._why is not None:
            raise Problem(503, "broker", self._why, retry_after=AWAY)

    @asynccontextmanager
    async def confirming(self) -> AsyncIterator[None]:
        """A block that waits for confirms. Raises ``Unconfirmed`` as soon as the broker blocks publishers."""
        try:
            async with asyncio.timeout(None) as waiting:
                self._waiting.add(waiting)
                try:
                    yield
                finally:
                    self._waiting.discard(waiting)
        except TimeoutError:
            raise Unconfirmed("the broker began to block publishers") from None

    async def stay(self) -> None:
        """Keep connected until cancelled, also while nobody publishes.

        Raises ``ConnectionLost`` when no connection came to stand for too long at the start, and ``AccessRefused`` at
        any time.
        """
        while True:
            self._lost.clear()
            try:
                await self._publisher.connect()
            except ConnectionLost:
                if not self._reached:
                    raise
                await asyncio.sleep(_PAUSE)
            else:
                await self._lost.wait()

    def _learn(self, event: Event) -> None:
        match event:
            case LinkOpened() | LinkUnblocked():
                self._why, self._reached = None, True
            case LinkBlocked():
                self._why = "the broker takes no jobs until its alarm is over"
                self._give_up()
            case LinkLost() | LinkClosed() | ConnectFailed():
                self._why = "the broker cannot be reached"
                self._lost.set()
            case _:
                pass

    def _give_up(self) -> None:
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            with contextlib.suppress(RuntimeError):  # it ends by itself at this moment
                waiting.reschedule(now)
