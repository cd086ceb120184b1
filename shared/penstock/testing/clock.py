"""A clock that stands still until a test turns it."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import count

#: Where a clock starts unless told otherwise.
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """The wall clock, and the timers of a memory broker, moved by hand. Use it from one event loop.

    The event loop's own time is not touched: deadlines of handlers and publishes pass in real time.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        """Stand at *start*; raises ``ValueError`` when it has no time zone."""
        if start.tzinfo is None:
            raise ValueError("the start needs a time zone")
        self._now_ms = round(start.timestamp() * 1000)
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._quiets: list[Callable[[], Awaitable[None]]] = []

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC, where the clock stands."""
        return self._now_ms

    def now(self) -> datetime:
        """Where the clock stands, in UTC."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    def call_at(self, due_ms: int, wake: Callable[[], None]) -> None:
        """Call *wake* when ``advance`` reaches *due_ms*, or with the next ``advance`` when it is past."""
        heapq.heappush(self._due, (due_ms, next(self._order), wake))

    def join(self, quiet: Callable[[], Awaitable[None]]) -> None:
        """Wait for *quiet* before leaving an instant."""
        self._quiets.append(quiet)

    async def advance(self, by: timedelta) -> None:
        """Turn the clock forward by *by*: all that falls due happens in order, each at its own instant.

        Before an instant is left, and before this returns, its consequences are settled: messages are delivered,
        handlers have run, their copies are published. Raises ``ValueError`` for a negative *by*, ``TimeoutError`` when
        something does not settle (a handler that hangs).
        """
        if by < timedelta():
            raise ValueError("a clock cannot be turned back")
        end = self._now_ms + round(by / timedelta(milliseconds=1))
        await self._settled()
        while self._due and self._due[0][0] <= end:
            self._now_ms = max(self._now_ms, self._due[0][0])
            self._wake()
            await self._settled()
        self._now_ms = end

    def _wake(self) -> None:
        """Wake whoever is due now, also by a wake just made."""
        while self._due and self._due[0][0] <= self._now_ms:
            _, _, wake = heapq.heappop(self._due)
            wake()

    async def _settled(self) -> None:
        for quiet in self._quiets:
            await quiet()
