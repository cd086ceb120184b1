"""When messages in the memory broker fall due: a clock that can also wake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from penstock.clock import Clock, SystemClock


class Timers(Clock, Protocol):
    """A clock that wakes whoever asked: the event loop's timers, or a clock that a test turns by hand."""

    def call_at(self, due_ms: int, wake: Callable[[], None]) -> None:
        """Call *wake* on the loop once the clock shows *due_ms* (milliseconds since 1970 UTC) or later."""
        ...

    def join(self, quiet: Callable[[], Awaitable[None]]) -> None:
        """Have a clock that is turned by hand wait for *quiet* before it moves on from an instant; others ignore it."""
        ...


class LoopTimers(SystemClock):
    """The machine's clock and the running loop's timers."""

    def call_at(self, due_ms: int, wake: Callable[[], None]) -> None:
        """Call *wake* on the running loop once the clock shows *due_ms* or later."""
        asyncio.get_running_loop().call_later(max(0, due_ms - self.now_ms()) / 1000, wake)

    def join(self, quiet: Callable[[], Awaitable[None]]) -> None:
        """Nothing to do: the machine's clock waits for nobody."""
