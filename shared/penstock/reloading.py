"""The parent of ``--reload``: starts the command anew whenever a file of the project changes. For development."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from penstock.errors import UsageError
from penstock.parent import Leash, ended

if TYPE_CHECKING:
    from watchfiles import DefaultFilter

_log = structlog.stdlib.get_logger("penstock")


class Reloader:
    """Runs *command* until SIGTERM or SIGINT, and again from the start after each change below *folder*.

    A command that ends by itself (a syntax error, say) is started again at the next change. Used once, in the main
    thread. *kill_after*: how long a stopping child may take.
    """

    def __init__(self, command: Sequence[str], folder: Path, *, kill_after: timedelta) -> None:
        self._command = command
        self._folder = folder
        self._kill_after = kill_after.total_seconds()
        self._leash = Leash()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run until a signal; the exit code is that of the last child. Raises ``UsageError`` without watchfiles."""
        watch_filter = _filter()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        try:
            code = 0
            async with self._changes(watch_filter) as changed:
                while not self._stop.is_set():
                    changed.clear()
                    code = await self._once(changed)
            return code
        finally:
            self._leash.close()

    async def _once(self, changed: asyncio.Event) -> int:
        """Run the command until it has ended and something has changed, or a stop is asked for."""
        child = await self._leash.start(self._command)
        running = asyncio.create_task(child.wait())
        waits = [asyncio.create_task(changed.wait()), asyncio.create_task(self._stop.wait())]
        await asyncio.wait([running, *waits], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            _log.warning("the worker ended; change a file to start it again", exit_code=child.returncode)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        else:
            await ended(child, self._kill_after)
        for wait in waits:
            wait.cancel()
        return abs(await running)

    @asynccontextmanager
    async def _changes(self, watch_filter: DefaultFilter) -> AsyncIterator[asyncio.Event]:
        """An event that is set at every change."""
        changed = asyncio.Event()
        watching = asyncio.create_task(self._watch(changed, watch_filter))
        try:
            yield changed
        finally:
            self._stop.set()
            await watching

    async def _watch(self, changed: asyncio.Event, watch_filter: DefaultFilter) -> None:
        from watchfiles import awatch

        async for changes in awatch(self._folder, watch_filter=watch_filter, stop_event=self._stop):
            files = sorted({str(Path(path).relative_to(self._folder)) for _, path in changes})
            _log.info("changed, starting anew", files=files[:3])
            changed.set()


def _filter() -> DefaultFilter:
    try:
        from watchfiles import PythonFilter
    except ImportError:
        raise UsageError("--reload needs watchfiles, which is not installed: pip install watchfiles") from None
    return PythonFilter(extra_extensions=(".yaml", ".yml", ".toml", ".env"))
