"""The parent of ``--processes N``: starts workers, passes signals on, replaces crashed ones, but not for ever."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from penstock.errors import AccessRefused, ConfigError, ConnectionLost, UsageError
from penstock.parent import Leash, ended, tell

#: Exit codes that starting again cannot mend: usage or import, refused, configuration.
FINAL = frozenset({UsageError.exit_code, AccessRefused.exit_code, ConfigError.exit_code})

_log = structlog.stdlib.get_logger("penstock")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often workers may crash before their parent gives up, and how long it waits before it starts the next."""

    crashes: int = 5
    within: timedelta = timedelta(seconds=60)
    first_wait: timedelta = timedelta(seconds=0.5)
    longest_wait: timedelta = timedelta(seconds=15)


class Supervisor:
    """Keeps *count* processes of *command* running until SIGTERM or SIGINT. Used once, in the main thread.

    *kill_after*: how long a stopping child may take before it is killed. *variables*: what the environment of the child
    in each place, from 1 on, says otherwise than ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        *,
        kill_after: timedelta,
        patience: Patience | None = None,
        variables: Callable[[int], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._command = command
        self._count = count
        self._kill_after = kill_after.total_seconds()
        self._patience = patience or Patience()
        self._variables = variables
        self._leash = Leash()
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._crashes: deque[float] = deque()
        self._ready = False
        self._clean = True
        self._stop = asyncio.Event()
        self._verdict: int | None = None

    async def run(self) -> int:
        """Run until every child has ended.

        The exit code: 0 when all ended well after a signal, 1 when one of them did not, or when they crashed too
        often; 2, 4 or 5 as soon as a child ends with it, and 3 while none of them ever reached the broker.
        """
        loop = asyncio.get_running_loop()
        self._leash.on_word(self._heard)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        try:
            await asyncio.gather(*(self._keep(place) for place in range(1, self._count + 1)))
        finally:
            self._leash.close()
        if self._verdict is not None:
            return self._verdict
        return 0 if self._clean else 1

    async def _keep(self, place: int) -> None:
        """Keep one place filled."""
        failures = 0
        while not self._stop.is_set():
            started = time.monotonic()
            code = await self._child(place)
            if self._stop.is_set():
                # One that was stopped before it could listen to signals had no job yet.
                self._clean = self._clean and code in (0, -signal.SIGTERM)
                return
            failures = 1 if time.monotonic() - started > self._patience.within.total_seconds() else failures + 1
            self._judge(place, code)
            await self._pause(failures)

    async def _child(self, place: int) -> int:
        """Start a child and return how it ended."""
        child = self._children[place] = await self._leash.start(self._command, self._variables(place))
        _log.info("worker started", place=place, pid=child.pid)
        waits = [asyncio.create_task(child.wait()), asyncio.create_task(self._stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if child.returncode is None and not await ended(child, self._kill_after):
                _log.error("a worker did not stop and was killed", pid=child.pid, after_s=self._kill_after)
            return await child.wait()
        finally:
            waits[1].cancel()
            del self._children[place]

    def _judge(self, place: int, code: int) -> None:
        """A child ended by itself: start another, or give up."""
        how = _words(code)
        if code in FINAL:
            self._give_up(code, "a worker cannot start", how)
        elif code == ConnectionLost.exit_code and not self._ready:
            self._give_up(code, "the broker cannot be reached", how)
        elif code and self._too_often():
            window = f"{self._patience.within.total_seconds():g} s"
            self._give_up(1, f"{self._patience.crashes} workers crashed within {window}", how)
        elif code:
            _log.error("a worker crashed, another is started", place=place, how=how)
        else:
            _log.info("a worker was stopped, another is started", place=place)

    def _too_often(self) -> bool:
        now = time.monotonic()
        self._crashes.append(now)
        while now - self._crashes[0] > self._patience.within.total_seconds():
            self._crashes.popleft()
        return len(self._crashes) >= self._patience.crashes

    def _give_up(self, code: int, why: str, how: str) -> None:
        _log.error("giving up", why=why, last=how, exit_code=code)
        self._verdict = code
        self._stop.set()

    async def _pause(self, failures: int) -> None:
        longest = self._patience.longest_wait.total_seconds()
        seconds = min(self._patience.first_wait.total_seconds() * 2 ** min(failures - 1, 16), longest)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _heard(self) -> None:
        self._ready = True

    def _on_signal(self) -> None:
        if self._stop.is_set():
            _log.warning("stopping now", workers=len(self._children))
            for child in self._children.values():
                tell(child, signal.SIGTERM)
            return
        _log.info("stopping: running jobs may end; signal again to stop now", workers=len(self._children))
        self._stop.set()


def _words(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
