"""How a process that serves until it is told to stop runs its loop, and what signals do to it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any  # tasks of any kind


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def obey_signals(stop: asyncio.Event, running: asyncio.Task[Any]) -> None:
    """Let the first SIGTERM or SIGINT set *stop*, and the second cancel *running*. In the main thread."""

    def on_signal() -> None:
        if stop.is_set():
            running.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
